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
  const ask = async (text) => {
    at("question").value = text;
    at("send").click();
    await until("the answer begins", () => frame.contentDocument.querySelector("li.assistant:last-child")?.textContent);
  };
  const idle = () => until("the answer is over", () => !at("send").disabled);
  await ask("first");
  const [stopWorks, sendWaits] = [!at("stop").disabled, at("send").disabled];
  at("stop").click();
  await idle();
  const stopped = at("statistics").textContent;
  await ask("second");
  at("stop").click();
  await idle();
  const roles = [...frame.contentDocument.querySelectorAll("li")].map((item) => item.className);
  return { stopWorks, sendWaits, stopped, roles, loadingHidden: at("loading").hidden };
}
