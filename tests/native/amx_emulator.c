/* Runs compiled code with AMX instructions on processors without them, one instruction at a time.
 *
 * Such an instruction raises SIGILL. The handler decodes the ones that kernels contain (VEX.128, map 0F38),
 * executes them on tiles in memory, and goes on after them. It is stricter than silent: what it does not
 * know, and what the processor would refuse (a wrong configuration, tiles whose sizes do not match), ends the
 * process with SIGILL. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volumes 1
 * (chapter on AMX) and 2.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64, NO_PREFIX = 0, PREFIX_66 = 1, PREFIX_F3 = 2, PREFIX_F2 = 3 };

/* What is counted: instructions executed, by kind. */
enum kind { CONFIGURE, RELEASE, ZERO, LOAD, STORE, MULTIPLY, KINDS };

typedef struct {
  bool configured;
  int rows[TILES], row_bytes[TILES];
  uint8_t data[TILES][ROWS][ROW_BYTES];
} tile_state;

/* A decoded instruction; `address` and `stride` where it has an operand in memory. */
typedef struct {
  int prefix, opcode, reg, rm, other, length;
  bool in_memory, is_tile_row; /* a SIB byte, whose index is the distance of rows */
  uint8_t* address;
  int64_t stride;
} instruction;

static _Thread_local tile_state own;
static atomic_long counts[KINDS];
static struct sigaction before;

static int64_t general_register(const ucontext_t* context, int number) {
  static const int places[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return context->uc_mcontext.gregs[places[number]];
}

/* Reads the operand in memory that starts at ModRM; false for a form without a base register. */
static bool decode_address(const ucontext_t* context, const uint8_t* modrm, int extend_base, int extend_index,
                           instruction* it) {
  const int mode = modrm[0] >> 6, rm = modrm[0] & 7;
  const uint8_t* at = modrm + 1;
  int64_t address;
  it->in_memory = true;
  if (mode == 0 && rm == 5) { /* relative to the next instruction, which follows four bytes of distance */
    int32_t distance;
    memcpy(&distance, at, sizeof distance);
    it->length += 5;
    it->address = (uint8_t*)(modrm - 4 + it->length) + distance;
    return true;
  }
  int base = rm, index = 4;
  if (rm == 4) {
    const int scale = *at >> 6;
    base = *at & 7;
    index = (*at >> 3 & 7) + extend_index;
    if (mode == 0 && base == 5) return false;
    if (index != 4) it->stride = (int64_t)((uint64_t)general_register(context, index) << scale);
    it->is_tile_row = true;
    ++at;
  }
  address = general_register(context, base + extend_base);
  if (mode == 1) address += (int8_t)*at++;
  if (mode == 2) {
    int32_t distance;
    memcpy(&distance, at, sizeof distance);
    address += distance;
    at += 4;
  }
  it->length += (int)(at - modrm);
  it->address = (uint8_t*)address;
  return true;
}

static bool decode(const ucontext_t* context, instruction* it) {
  const uint8_t* const at = (const uint8_t*)context->uc_mcontext.gregs[REG_RIP];
  if (at[0] != 0xC4 || (at[1] & 0x1F) != 2 || (at[2] & 0x84) != 0) return false; /* map 0F38, W and L zero */
  const int extend_reg = at[1] & 0x80 ? 0 : 8, extend_index = at[1] & 0x40 ? 0 : 8,
            extend_base = at[1] & 0x20 ? 0 : 8;
  it->prefix = at[2] & 3;
  it->other = ~at[2] >> 3 & 15;
  it->opcode = at[3];
  it->reg = (at[4] >> 3 & 7) + extend_reg;
  it->rm = (at[4] & 7) + extend_base;
  it->length = 4;
  if (at[4] >> 6 != 3) return decode_address(context, at + 4, extend_base, extend_index, it);
  it->length += 1;
  return true;
}

/* ldtilecfg: palette 1, start row 0, then at byte 16 the bytes of a row and at byte 48 the rows of each tile.
 */
static bool configure(const uint8_t* config) {
  memset(&own, 0, sizeof own);
  if (config[0] == 0) return true;
  if (config[0] != 1 || config[1] != 0) return false;
  for (int i = 2; i < 64; ++i) {
    const bool reserved = i < 16 || (i >= 16 + 2 * TILES && i < 48) || i >= 48 + TILES;
    if (reserved && config[i] != 0) return false;
  }
  for (int tile = 0; tile < TILES; ++tile) {
    own.rows[tile] = config[48 + tile];
    own.row_bytes[tile] = config[16 + 2 * tile] | config[17 + 2 * tile] << 8;
    if (own.rows[tile] > ROWS || own.row_bytes[tile] > ROW_BYTES) return false;
    if ((own.rows[tile] == 0) != (own.row_bytes[tile] == 0)) return false;
  }
  own.configured = true;
  return true;
}

static bool usable(int tile) {
  return tile < TILES && own.configured && own.rows[tile] > 0;
}

static bool move(const instruction* it, bool to_memory) {
  if (!usable(it->reg) || !it->is_tile_row || it->other != 0) return false;
  for (int row = 0; row < own.rows[it->reg]; ++row) {
    uint8_t *const place = it->address + row * it->stride, *const tile = own.data[it->reg][row];
    memcpy(to_memory ? place : tile, to_memory ? tile : place, (size_t)own.row_bytes[it->reg]);
  }
  return true;
}

static uint32_t four_products(const uint8_t* left, bool left_signed, const uint8_t* right,
                              bool right_signed) {
  int32_t sum = 0;
  for (int i = 0; i < 4; ++i) {
    sum += (left_signed ? (int8_t)left[i] : left[i]) * (right_signed ? (int8_t)right[i] : (int32_t)right[i]);
  }
  return (uint32_t)sum;
}

/* tdpb??d: reg += rm · other; prefixes F2 = signed · signed, F3 = signed · unsigned, 66 = unsigned · signed.
 */
static bool multiply(const instruction* it) {
  const int sums = it->reg, left = it->rm, right = it->other;
  if (it->in_memory || !usable(sums) || !usable(left) || !usable(right)) return false;
  if (sums == left || sums == right || left == right) return false;
  if (own.rows[sums] != own.rows[left] || own.row_bytes[sums] != own.row_bytes[right]) return false;
  if (own.row_bytes[left] != 4 * own.rows[right] || own.row_bytes[right] % 4 != 0) return false;
  const bool left_signed = it->prefix == PREFIX_F2 || it->prefix == PREFIX_F3;
  const bool right_signed = it->prefix == PREFIX_F2 || it->prefix == PREFIX_66;
  for (int m = 0; m < own.rows[sums]; ++m) {
    for (int n = 0; n < own.row_bytes[sums] / 4; ++n) {
      uint32_t sum;
      memcpy(&sum, own.data[sums][m] + 4 * n, sizeof sum);
      for (int k = 0; k < own.rows[right]; ++k) {
        sum +=
            four_products(own.data[left][m] + 4 * k, left_signed, own.data[right][k] + 4 * n, right_signed);
      }
      memcpy(own.data[sums][m] + 4 * n, &sum, sizeof sum);
    }
  }
  return true;
}

static bool counted(bool done, enum kind kind) {
  if (done) atomic_fetch_add(&counts[kind], 1);
  return done;
}

static bool execute(const instruction* it) {
  const int form = it->opcode << 4 | it->prefix;
  switch (form) {
    case 0x49 << 4 | NO_PREFIX:
      if (it->other != 0 || it->reg != 0) return false;
      if (it->in_memory) return counted(configure(it->address), CONFIGURE);
      memset(&own, 0, sizeof own);
      return counted(it->rm == 0, RELEASE);
    case 0x49 << 4 | PREFIX_F2:
      if (it->in_memory || it->rm != 0 || it->other != 0 || !usable(it->reg)) return false;
      memset(own.data[it->reg], 0, sizeof own.data[it->reg]);
      return counted(true, ZERO);
    case 0x4B << 4 | PREFIX_F2:
    case 0x4B << 4 | PREFIX_66: /* tileloaddt1: the same, with a hint */
      return counted(move(it, false), LOAD);
    case 0x4B << 4 | PREFIX_F3:
      return counted(move(it, true), STORE);
    case 0x5E << 4 | NO_PREFIX:
    case 0x5E << 4 | PREFIX_66:
    case 0x5E << 4 | PREFIX_F3:
    case 0x5E << 4 | PREFIX_F2:
      return counted(multiply(it), MULTIPLY);
    default:
      return false;
  }
}

static void on_illegal_instruction(int number, siginfo_t* info, void* argument) {
  (void)info;
  ucontext_t* const context = argument;
  instruction it = {0};
  if (decode(context, &it) && execute(&it)) {
    context->uc_mcontext.gregs[REG_RIP] += it.length;
    return;
  }
  signal(number, SIG_DFL); /* the instruction is met again, and ends the process */
}

int amx_install(void);
void amx_uninstall(void);
int64_t amx_count(int kind);
int amx_configured(void);

/* Starts executing the process's AMX instructions; 0, or -1 if the handler cannot be set. */
int amx_install(void) {
  struct sigaction action = {0};
  action.sa_sigaction = on_illegal_instruction;
  action.sa_flags = SA_SIGINFO;
  return sigaction(SIGILL, &action, &before);
}

void amx_uninstall(void) {
  sigaction(SIGILL, &before, 0);
}

/* How many instructions of a kind were executed so far, by all threads. */
int64_t amx_count(int kind) {
  return atomic_load(&counts[kind]);
}

/* Whether the calling thread's tiles are configured: code that used them should have released them. */
int amx_configured(void) {
  return own.configured;
}
