// Logits of a text in calls of one row and of many, from a core that was opened.

/** Runs tokens as one call, a chain or a tree of those parents, and commits the rows `path`, or all; returns each row's
 * logits. */
export async function commit(core, vocabularySize, ids, { session, sequence, parents = null, path = null } = {}) {
  const { exports, waiting } = core;
  session ??= core.handles.session;
  sequence ??= core.sequence;
  const indices = ids.map((_, i) => i);
  const kept = path ?? indices;
  return core.withRoom(8 * ids.length, (list) =>
    core.withRoom(8 * ids.length, (rows) =>
      core.withRoom(40, (request) =>
        core.withRoom(24, async (result) => {
          core.setInt32s(list, [...ids, ...(parents ?? [])]);
          core.check(exports.forerun_stage(session, sequence, ids.length, list, parents ? list + 4 * ids.length : 0));
          core.setInt32s(rows, indices.flatMap((i) => [sequence, i]));
          core.setInt32s(request, [rows, ids.length, 0, -1, 0, -1, 0, 0, 0, 0]);
          core.check(await waiting.forerun_forward(session, request, result));
          const logits = core.uint32(result);
          const bytes = 4 * vocabularySize;
          const found = indices.map((i) => {
            const at = logits + i * bytes;
            const hash = BigInt.asUintN(64, exports.forerun_hash64(at, bytes, 0n)).toString(16).padStart(16, "0");
            return { hash, logits: Array.from(new Float32Array(core.bytes(at, bytes).slice().buffer)) };
          });
          core.setInt32s(list, kept);
          core.check(await waiting.forerun_commit(session, sequence, kept.length, list));
          return found;
        }))));
}

export const hashes = (rows) => rows.map(({ hash }) => hash);

/** Each row's hash when it is computed alone, and in calls of 2, 5, 8 … rows; and its logits. */
export async function computeRows(core, vocabularySize, tokens) {
  const [alone, together] = [[], []];
  for (const token of tokens) alone.push(...(await commit(core, vocabularySize, [token])));
  core.check(await core.waiting.forerun_rewind(core.handles.session, core.sequence, 0));
  for (let at = 0, rows = 2; at < tokens.length; at += rows, rows += 3) {
    together.push(...(await commit(core, vocabularySize, tokens.slice(at, at + rows))));
  }
  return { alone: hashes(alone), together: hashes(together), logits: alone.map(({ logits }) => logits) };
}
