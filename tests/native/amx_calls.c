/* AMX instructions in the forms that compilers choose among, for the emulator's own tests. */
#include <stdint.h>

enum { SIGNED_SIGNED, SIGNED_UNSIGNED, UNSIGNED_SIGNED, UNSIGNED_UNSIGNED };

void multiply_tiles(int form, const uint8_t* config, const void* left, int64_t left_stride, const void* right,
                    int64_t right_stride, int32_t* sums, int64_t sums_stride);
void move_tiles(const uint8_t* from, int64_t from_stride, uint8_t* to, int64_t to_stride);
void multiply_into_itself(const uint8_t* config);
void configure_only(const uint8_t* config);
void zero_unconfigured(void);
void multiply_floats(const uint8_t* config);
void undefined(void);

#define MULTIPLY(name) __asm__ volatile(name " %tmm3, %tmm2, %tmm1")

/* sums += left · right, with the sums in tile 1, the left in 2, the right in 3; then sums again, from zero,
 * below. */
void multiply_tiles(int form, const uint8_t* config, const void* left, int64_t left_stride, const void* right,
                    int64_t right_stride, int32_t* sums, int64_t sums_stride) {
  __asm__ volatile("ldtilecfg (%0)" ::"r"(config) : "memory");
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm1" ::"r"(sums), "r"(sums_stride) : "memory");
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm2" ::"r"(left), "r"(left_stride) : "memory");
  __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm3" ::"r"(right), "r"(right_stride) : "memory");
  for (int pass = 0; pass < 2; ++pass) {
    if (pass == 1) __asm__ volatile("tilezero %tmm1");
    if (form == SIGNED_SIGNED) MULTIPLY("tdpbssd");
    if (form == SIGNED_UNSIGNED) MULTIPLY("tdpbsud");
    if (form == UNSIGNED_SIGNED) MULTIPLY("tdpbusd");
    if (form == UNSIGNED_UNSIGNED) MULTIPLY("tdpbuud");
    uint8_t* const to = (uint8_t*)sums + pass * 16 * sums_stride;
    __asm__ volatile("tilestored %%tmm1, (%0,%1,1)" ::"r"(to), "r"(sums_stride) : "memory");
  }
  __asm__ volatile("tilerelease");
}

/* Every tile 16 × 64. */
static const uint8_t whole[64] __attribute__((used)) = {
    1,  0, 0,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 64, 0, 64, 0,  64, 0,  64, 0,  64, 0,
    64, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0, 0,  0, 16, 16, 16, 16, 16, 16, 16, 16};

/* Copies a tile by way of several addressing modes; the copies lie 1 KiB apart, rows close together but the
 * first. */
void move_tiles(const uint8_t* from, int64_t from_stride, uint8_t* to, int64_t to_stride) {
  __asm__ volatile(
      "ldtilecfg whole(%%rip)\n"
      "mov %0, %%r13\n"
      "lea -0x1000(%%r13), %%r12\n"
      "mov %1, %%r14\n"
      "mov %2, %%r9\n"
      "mov %3, %%rcx\n"
      "tileloadd 0x1000(%%r12,%%r14,1), %%tmm7\n"
      "tileloadd (%%r13,%%r14,1), %%tmm0\n"
      "tilestored %%tmm7, (%%r9,%%rcx,1)\n"
      "shr $1, %%rcx\n"
      "lea 0x4000(%%r9), %%rax\n"
      "tilestored %%tmm0, -0x40(%%rax,%%rcx,2)\n"
      "sub $0x1000, %%rsp\n"
      "mov $64, %%r10d\n"
      "tilestored %%tmm0, 0x40(%%rsp,%%r10,1)\n"
      "tileloaddt1 0x40(%%rsp,%%r10,1), %%tmm5\n"
      "add $0x1000, %%rsp\n"
      "tilestored %%tmm5, 0x8000(%%r9,%%rcx,2)\n"
      "tileloadd (%%r13), %%tmm6\n"
      "tilestored %%tmm6, 0xc000(%%r9,%%r10,1)\n"
      "tilerelease\n" ::"r"(from),
      "r"(from_stride), "r"(to), "r"(to_stride)
      : "rax", "rcx", "r9", "r10", "r12", "r13", "r14", "memory");
}

/* What the processor refuses, and what the emulator does not know: each ends the process. */
void multiply_into_itself(const uint8_t* config) {
  configure_only(config);
  __asm__ volatile(
      ".byte 0xc4, 0xe2, 0x6b, 0x5e, 0xca"); /* tdpbssd %tmm2, %tmm2, %tmm1: assemblers refuse it */
}

void configure_only(const uint8_t* config) {
  __asm__ volatile("ldtilecfg (%0)" ::"r"(config) : "memory");
}

void zero_unconfigured(void) {
  __asm__ volatile("tilezero %tmm0");
}

void multiply_floats(const uint8_t* config) {
  configure_only(config);
  __asm__ volatile("tdpbf16ps %tmm3, %tmm2, %tmm1");
}

void undefined(void) {
  __asm__ volatile("ud2");
}
