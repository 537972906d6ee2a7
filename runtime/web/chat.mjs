// The page: loads the package that it lies in and chats with it.
import { Forerun } from "./forerun.mjs";

const at = (id) => document.getElementById(id);
const messages = [];
let model = null;
let answer = null;

function showError(error) {
  at("error").textContent = error.message;
  at("error").hidden = false;
}

function showProgress({ receivedBytes, totalBytes }) {
  const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
  at("progress").value = receivedBytes / totalBytes;
  const part = `Loading the model: ${megabytes(receivedBytes)} of ${megabytes(totalBytes)} MB`;
  at("progress-text").textContent = receivedBytes < totalBytes ? part : "Preparing the model …";
}

function showStatistics({ generatedTokens, verifyCalls, accepted, draftMs, verifyMs, commitMs, prefillMs }) {
  const seconds = (draftMs + verifyMs + commitMs) / 1000;
  const parts = [`${generatedTokens} tokens`, `read the prompt in ${(prefillMs / 1000).toFixed(1)} s`];
  if (verifyCalls > 0) {
    parts.splice(1, 0, `${(generatedTokens / seconds).toFixed(1)} tokens/s`);
    parts.splice(2, 0, `${(1 + accepted / verifyCalls).toFixed(2)} tokens per call`);
  }
  at("statistics").textContent = parts.join(" · ");
}

function addMessage(role, content) {
  const item = document.createElement("li");
  item.className = role;
  item.textContent = content;
  at("conversation").append(item);
  item.scrollIntoView({ block: "end" });
  return item;
}

function setBusy(busy) {
  at("question").disabled = busy;
  at("send").disabled = busy;
  at("stop").disabled = !busy;
  if (!busy) at("question").focus();
}

async function ask(question) {
  messages.push({ role: "user", content: question });
  addMessage("user", question);
  const item = addMessage("assistant", "");
  setBusy(true);
  at("error").hidden = true;
  try {
    answer = model.chat(messages, { maxTokens: 512 });
    for await (const text of answer) {
      item.textContent += text;
      item.scrollIntoView({ block: "end" });
    }
    const { text, statistics } = await answer.result;
    messages.push({ role: "assistant", content: text });
    showStatistics(statistics);
  } catch (error) {
    messages.pop();
    showError(error);
  }
  setBusy(false);
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  at("question").value = "";
  if (question) ask(question);
});
at("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey) return;
  event.preventDefault();
  at("form").requestSubmit();
});
at("stop").addEventListener("click", () => answer?.cancel());

try {
  model = await Forerun.load("./", { onProgress: showProgress, capacity: 2048 });
  at("loading").hidden = true;
  const { device, threads } = model.facts;
  const processor = `the processor, on ${threads === 1 ? "one thread" : `${threads} threads`}`;
  at("device").textContent = `It runs on ${device ? `the GPU: ${device}` : processor}.`;
  setBusy(false);
  at("stop").disabled = true;
} catch (error) {
  at("loading").hidden = true;
  showError(error);
}
