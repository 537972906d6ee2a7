/** A language model in the browser, or in Node, as `forerun package BUNDLE --target wasm32` writes it. */

/** How far loading is, in bytes of the model's files; the program (about a megabyte) comes before. */
export interface Progress {
  file: string;
  receivedBytes: number;
  totalBytes: number;
}

export interface LoadOptions {
  /** Called as bytes come in. */
  onProgress?: (progress: Progress) => void;
  /** Workers that compute, 1 to 256. If left out: one a processor, at most 4, where workers may share memory, and
   * otherwise 1. They may in Node, and in pages that are `crossOriginIsolated`, by the headers
   * Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp; elsewhere more than 1 is
   * an error. Answers do not depend on it. */
  threads?: number;
  /** Positions of the conversation, prompt and answer together; 0 = the model's context length. Memory for all of
   * them is reserved when the model is loaded. */
  capacity?: number;
  /** "auto" (the default): the GPU where the package has programs for it and the browser a GPU, else the processor;
   * "gpu": a GPU, or software that stands for one, or an error; "cpu": the processor. */
  device?: "auto" | "cpu" | "gpu";
  /** Gives the loading up. */
  signal?: AbortSignal;
}

export interface Facts {
  target: string;
  /** The GPU's name; null where the processor computes. */
  device: string | null;
  /** Why the processor computes although a GPU was not declined. */
  whyNoDevice: string | null;
  vocabularySize: number;
  contextLength: number;
  capacity: number;
  threads: number;
  /** Whether `chat` works. */
  hasChat: boolean;
  /** Tokens that end an answer. */
  endIds: number[];
}

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

/** What an answer is asked to be. Specs of drafters, shapes and exits are those of `forerun list`. */
export interface AnswerOptions {
  /** Most tokens; 256 if left out. */
  maxTokens?: number;
  /** 0 (the default): always the likeliest token. */
  temperature?: number;
  /** Draw from so many likeliest tokens; 0 = all. */
  topK?: number;
  /** Draw from the likeliest tokens that have this probability together; 1 = all. */
  topP?: number;
  /** Of the draws: 0 to 2^64 - 1. The same seed gives the same answer, whatever drafts. */
  seed?: number | bigint;
  /** "none" (the default), "lookup", "self:layers=28,tokens=2", a network of the bundle such as "feature", or "auto",
   * which measures what calls cost before its first answer: some seconds on one thread. */
  drafter?: string;
  shape?: string | null;
  exit?: string | null;
  /** Go on after tokens that end an answer. */
  ignoreEnd?: boolean;
  /** Ends the answer before its next step; `finish` is then "cancelled". */
  signal?: AbortSignal;
}

/** What an answer took. Tokens a call: (verifyCalls + accepted) / verifyCalls. */
export interface Statistics {
  promptTokens: number;
  /** Tokens of the prompt that the conversation before had left computed. */
  cachedTokens: number;
  generatedTokens: number;
  verifyCalls: number;
  drafted: number;
  accepted: number;
  prefillMs: number;
  draftMs: number;
  verifyMs: number;
  commitMs: number;
}

export interface Result {
  ids: number[];
  text: string;
  finish: "stop" | "length" | "context_full" | "cancelled";
  statistics: Statistics;
}

/** An answer under way. It runs whether or not it is read; leaving a `for await` early cancels it. */
export interface Answer extends AsyncIterable<string> {
  /** All of it, when it is over. Rejects with a ForerunError if the core refuses or fails. */
  readonly result: Promise<Result>;
  cancel(): void;
}

/** A failure, with the core's own text. */
export class ForerunError extends Error {
  /** The number of forerun_status in forerun.h, such as 24 for a file that was changed; null: none of the core's. */
  readonly status: number | null;
}

/** A model, and the workers that run it. One answer at a time. */
export class Forerun {
  private constructor();

  /** Loads the package in the folder at `url` (relative to the page; in Node also a path). Every file is checked.
   * Rejects with a ForerunError, or with the signal's reason. */
  static load(url: string | URL, options?: LoadOptions): Promise<Forerun>;

  readonly facts: Facts;

  /** Answers a conversation by the model's chat template. Throws a ForerunError while another answer is under way. */
  chat(messages: readonly Message[], options?: AnswerOptions): Answer;

  /** Continues a text, or token ids, as they are. */
  generate(prompt: string | Iterable<number>, options?: AnswerOptions): Answer;

  /** Ends the workers and gives their memory back (Chromium takes some seconds to end several); an answer under way
   * rejects. */
  close(): void;
}
