// What tests ask of a package, the same in Node and in a browser: a list of answers, one after the other.
//   job      { url, answers: [{ prompt | messages, options, cancelAfter }] }
//   returns  { facts, progress, answers: [{ ids, text, pieces, finish, statistics } | { error, status }] }

async function run(model, { prompt, messages, options, cancelAfter }) {
  try {
    const answer = messages ? model.chat(messages, options) : model.generate(prompt, options);
    let pieces = "";
    let count = 0;
    if (cancelAfter === 0) answer.cancel();
    for await (const text of answer) {
      pieces += text;
      count += 1;
      if (count === cancelAfter) answer.cancel();
    }
    return { ...(await answer.result), pieces };
  } catch (error) {
    return { error: error.message, status: error.status };
  }
}

export async function runJob({ Forerun }, { url, answers, load }) {
  const progress = [];
  let model;
  try {
    model = await Forerun.load(url, { ...load, onProgress: (step) => progress.push(step) });
  } catch (error) {
    return { error: error.message, status: error.status };
  }
  const results = [];
  for (const answer of answers) results.push(await run(model, answer));
  model.close();
  return { facts: model.facts, progress: progress.at(-1), steps: progress.length, answers: results };
}
