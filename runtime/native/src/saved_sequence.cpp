#include "saved_sequence.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>

#include "stream.h"

namespace forerun {
namespace {

constexpr char kMagic[] = {'f', 'o', 'r', 'e', 'r', 'u', 'n', '\n'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kByteOrder = 0x01020304;

static_assert(sizeof(SavedHeader) == 104 && sizeof(SavedRow) == 12, "the file holds them without gaps");

// What of a row is in the file besides its record.
bool has_hidden(const Session& session, const Row& row) {
  return row.done < session.full_depth() && (row.done > 0 || row.token < 0);
}

bool has_features(const Session& session, const Row& row) {
  return session.program().feature_size > 0 && row.done == 0 && row.token >= 0;
}

uint64_t hidden_bytes(const Session& session) {
  return static_cast<uint64_t>(session.program().hidden_size) * sizeof(float);
}

uint64_t feature_bytes(const Session& session) {
  return static_cast<uint64_t>(session.program().feature_size) * sizeof(float);
}

// Bytes of the whole file. The cache holds more, so that nothing wraps.
uint64_t file_bytes(const Session& session, const Sequence& sequence) {
  const auto count = static_cast<uint64_t>(sequence.committed);
  uint64_t bytes = sizeof(SavedHeader) + count * sizeof(SavedRow) + sizeof(uint64_t);
  for (int32_t slot = 0; slot < sequence.committed; ++slot) {
    const Row& row = sequence.rows[slot];
    if (has_hidden(session, row)) bytes += hidden_bytes(session);
    if (has_features(session, row)) bytes += feature_bytes(session);
    const int32_t first = (row.start + 1) / 2, last = (row.done + 1) / 2;
    for (int32_t l = first; l < last; ++l) {
      if (slot >= oldest_kept(session, sequence, l)) bytes += session.cache.row_bytes(l);
    }
  }
  return bytes;
}

SavedHeader make_header(const Session& session) {
  SavedHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.byte_order = kByteOrder;
  header.bundle = session.bundle->identity();
  const std::string& target = session.bundle->target();
  std::copy_n(target.data(), std::min(target.size(), sizeof header.target - 1), header.target);
  return header;
}

// Room for a row of any layer.
Status reserve_row(const Session& session, Region* row) {
  uint64_t most = 0;
  for (int32_t l = 0; l < session.program().layers; ++l) most = std::max(most, session.cache.row_bytes(l));
  return row->reserve(1, most, "a row of the cache");
}

// Calls visit(layer, slot) for all keys and values that there are, in the order of the file.
template <typename Visitor>
Status for_each_cell(const Session& session, const Sequence& sequence, Visitor visit) {
  for (int32_t l = 0; l < session.program().layers; ++l) {
    for (int32_t slot = oldest_kept(session, sequence, l); slot < sequence.committed; ++slot) {
      if (is_filled(session, sequence, slot, l)) FORERUN_TRY(visit(l, slot));
    }
  }
  return FORERUN_OK;
}

Status write_rows(const Session& session, const Sequence& sequence, FileWriter* file) {
  for (int32_t slot = 0; slot < sequence.committed; ++slot) {
    const Row& row = sequence.rows[slot];
    const SavedRow saved = {row.token, row.start, row.done};
    FORERUN_TRY(file->put(&saved, sizeof saved));
  }
  const int64_t hidden_size = session.program().hidden_size, feature_size = session.program().feature_size;
  for (int32_t i = 0; i < sequence.pending_count; ++i) {
    const int32_t slot = sequence.pending[i];
    if (!has_hidden(session, sequence.rows[slot])) continue;
    FORERUN_TRY(file->put(sequence.hidden + slot * hidden_size, hidden_bytes(session)));
  }
  for (int32_t i = 0; i < sequence.pending_count; ++i) {
    const Row& row = sequence.rows[sequence.pending[i]];
    if (!has_features(session, row)) continue;
    FORERUN_TRY(file->put(sequence.features + row.features * feature_size, feature_bytes(session)));
  }
  return FORERUN_OK;
}

// ---- restoring ----

Status refuse(const char* path, const char* what) {
  return fail(FORERUN_SAVED, "%s %s; it is not a saved sequence, or damaged: save it again", path, what);
}

// How far rows may have been staged, that what the next ones see is there; 0 for a program without windows.
int64_t most_reach(const Session& session, int32_t rows) {
  int64_t most = 0;
  for (int32_t l = 0; l < session.program().layers; ++l) {
    const forerun_layer& layer = session.program().layer[l];
    const int64_t own = static_cast<int64_t>(rows) + layer.ring - layer.window;
    if (layer.window > 0) most = most > 0 ? std::min(most, own) : own;
  }
  return most;
}

Status check_header(const Session& session, const char* path, const SavedHeader& header, uint64_t bytes) {
  const SavedHeader own = make_header(session);
  if (std::memcmp(header.magic, own.magic, sizeof own.magic) != 0)
    return refuse(path, "does not begin as one");
  if (header.byte_order != own.byte_order) return refuse(path, "is of a machine of the other byte order");
  if (header.version != own.version) {
    return fail(FORERUN_VERSION, "%s has format version %u, this forerun reads version %u; save it again",
                path, header.version, own.version);
  }
  if (header.bytes != bytes) {
    return fail(FORERUN_SIZE, "%s has %" PRIu64 " bytes, its header says %" PRIu64 "; save it again", path,
                bytes, header.bytes);
  }
  if (std::memcmp(header.target, own.target, sizeof own.target) != 0) {
    return fail(FORERUN_SAVED,
                "%s was saved by a program for target %.*s, this one is for %s; restore it with that target, "
                "or read the text again",
                path, static_cast<int>(sizeof header.target), header.target, own.target);
  }
  if (header.bundle != own.bundle) {
    return fail(FORERUN_SAVED,
                "%s was saved with another bundle (%016" PRIx64 ", this one is %016" PRIx64
                "); restore it with that bundle, or read the text again",
                path, header.bundle, own.bundle);
  }
  const int32_t most = std::min(session.options.capacity, session.program().context_length);
  if (header.rows < 0 || header.reach < 0 || header.reach > most_reach(session, header.rows)) {
    return refuse(path, "has a broken header");
  }
  if (header.rows <= most) return FORERUN_OK;
  return fail(FORERUN_CONTEXT_FULL,
              "%s holds %d positions, a sequence of this session %d; create the session with a larger "
              "capacity",
              path, header.rows, most);
}

// Whether a row can be what the rows before it, of which `shallowest` is the least depth, allow.
bool is_sound(const Session& session, const SavedRow& saved, int32_t floor, int32_t shallowest) {
  const forerun_program& program = session.program();
  const bool by_token = saved.token >= 0 && saved.token < program.vocabulary_size && saved.start == 0;
  if (!by_token && saved.token != -1) return false;
  if (by_token && !has_embed(program)) return false;
  if (saved.start < 0 || saved.start >= session.full_depth()) return false;
  if (saved.done < saved.start || saved.done > session.full_depth()) return false;
  // A row takes its ancestors along, and attends to none that entered above.
  const int32_t attention = saved.start + saved.start % 2;
  return saved.done == saved.start ||
         (saved.done <= shallowest && (saved.done <= attention || attention >= floor));
}

Status read_row(Session& session, const char* path, FileReader* file, Sequence* sequence,
                int32_t* shallowest) {
  SavedRow saved;
  FORERUN_TRY(file->take(&saved, sizeof saved));
  const int32_t slot = sequence->committed;
  const int32_t floor = slot > 0 ? sequence->rows[slot - 1].floor : 0;
  if (!is_sound(session, saved, floor, *shallowest)) return refuse(path, "holds a row that cannot be");
  *shallowest = std::min(*shallowest, saved.done);
  Row row{};
  row.token = saved.token;
  row.position = slot;
  row.parent = slot - 1;
  row.start = saved.start;
  row.done = saved.done;
  row.floor = std::max(floor, saved.start);
  row.gather_start = slot + 1;
  row.features = -1;
  sequence->rows[slot] = row;
  if (row.done < session.full_depth()) sequence->pending[sequence->pending_count++] = slot;
  ++sequence->committed;
  return FORERUN_OK;
}

// Reads what the pending rows wait with.
Status read_pending(Session& session, const char* path, FileReader* file, Sequence* sequence) {
  const int64_t hidden_size = session.program().hidden_size, feature_size = session.program().feature_size;
  for (int32_t i = 0; i < sequence->pending_count; ++i) {
    const int32_t slot = sequence->pending[i];
    if (!has_hidden(session, sequence->rows[slot])) continue;
    FORERUN_TRY(file->take(sequence->hidden + slot * hidden_size, hidden_bytes(session)));
  }
  int32_t entry = 0;
  for (int32_t i = 0; i < sequence->pending_count; ++i) {
    const int32_t slot = sequence->pending[i];
    if (!has_features(session, sequence->rows[slot])) continue;
    if (entry == session.program().max_rows) return refuse(path, "holds more features than may wait");
    FORERUN_TRY(file->take(sequence->features + entry * feature_size, feature_bytes(session)));
    sequence->feature_slots[entry] = slot;
    sequence->rows[slot].features = entry++;
  }
  return FORERUN_OK;
}

Status read_into(Session& session, const char* path, FileReader* file, int32_t number) {
  Sequence& sequence = session.sequences()[number];
  SavedHeader header;
  FORERUN_TRY(file->take(&header, sizeof header));
  FORERUN_TRY(check_header(session, path, header, file->bytes()));
  sequence.reach = std::max(header.rows, header.reach);
  int32_t shallowest = session.full_depth();
  for (int32_t i = 0; i < header.rows; ++i) {
    FORERUN_TRY(read_row(session, path, file, &sequence, &shallowest));
  }
  if (header.bytes != file_bytes(session, sequence))
    return refuse(path, "has a size that its rows do not make");
  FORERUN_TRY(read_pending(session, path, file, &sequence));
  Region row;
  FORERUN_TRY(reserve_row(session, &row));
  FORERUN_TRY(for_each_cell(session, sequence, [&](int32_t layer, int32_t slot) -> Status {
    FORERUN_TRY(file->take(row.as<void>(), session.cache.row_bytes(layer)));
    session.cache.load_row(number, layer, slot, row.as<void>());
    return FORERUN_OK;
  }));
  FORERUN_TRY(session.cache.send(number, sequence.committed));
  return file->finish();
}

}  // namespace

Status save_sequence(Session& session, int32_t number, const char* path) {
  Sequence* sequence = nullptr;
  FORERUN_TRY(find_sequence(session, number, &sequence));
  SavedHeader header = make_header(session);
  header.rows = sequence->committed;
  // What is staged is not saved, but it may have overwritten something.
  if (most_reach(session, 1) > 0) header.reach = sequence->reach;
  header.bytes = file_bytes(session, *sequence);
  Region row;
  FORERUN_TRY(reserve_row(session, &row));
  FORERUN_TRY(session.cache.fetch(number, sequence->committed));
  FileWriter file;
  FORERUN_TRY(file.open(path));
  FORERUN_TRY(file.put(&header, sizeof header));
  FORERUN_TRY(write_rows(session, *sequence, &file));
  FORERUN_TRY(for_each_cell(session, *sequence, [&](int32_t layer, int32_t slot) {
    session.cache.store_row(number, layer, slot, row.as<void>());
    return file.put(row.as<void>(), session.cache.row_bytes(layer));
  }));
  return file.finish();
}

Status restore_sequence(Session& session, const char* path, int32_t* number) {
  FileReader file;
  FORERUN_TRY(file.open(path));
  int32_t created = 0;
  FORERUN_TRY(create_sequence(session, &created));
  const Status status = read_into(session, path, &file, created);
  // Nothing of a sequence that is not used is ever looked at.
  if (status != FORERUN_OK) session.sequences()[created].used = false;
  if (status == FORERUN_OK) *number = created;
  return status;
}

}  // namespace forerun
