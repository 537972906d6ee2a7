// Uses the page as a person would, in a frame: asks, stops an answer, asks again.
async function until(what, condition) {
  for (let i = 0; i < 600; i += 1) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`waited in vain until ${what}`);
}

export async function runPage({ path }) {
  const frame = document.createElement("iframe");
  frame.src = path;
  document.body.append(frame);
  const at = (id) => frame.contentDocument?.getElementById(id);
  await until("the model is loaded or refused", () => at("send")?.disabled === false || at("error")?.hidden === false);
  if (!at("error").hidden) return { error: at("error").textContent };
  // Stopped at once: a tiny model would be at its context's end before this page looks again.
  const askAndStop = async (text) => {
    at("question").value = text;
    at("send").click();
    const buttons = { stopWorks: !at("stop").disabled, sendWaits: at("send").disabled };
    at("stop").click();
    await until("the answer is over", () => !at("send").disabled);
    return { ...buttons, statistics: at("statistics").textContent };
  };
  const answers = [await askAndStop("first"), await askAndStop("second")];
  const roles = [...frame.contentDocument.querySelectorAll("li")].map((item) => item.className);
  return { answers, roles, loadingHidden: at("loading").hidden, device: at("device").textContent };
}
