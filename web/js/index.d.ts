/** A language model that runs in this browser. Nothing is sent anywhere but the requests for the model's own file. */
export class Ir {
  private constructor();

  /**
   * Loads a GGUF file, or the parts of one. It is read in pieces, straight to the device: the page never holds it as a whole.
   * @throws {IrError} with a sentence that says what to do; or `signal.reason` where it was aborted.
   */
  static load(source: Source, options?: LoadOptions): Promise<Ir>;

  /** Model files that this browser keeps. */
  static readonly cache: Cache;

  /**
   * Answers a chat, laid out by the model's own template; a last message of the assistant, behind others, is the beginning of
   * the answer. What earlier calls computed of it is used again.
   */
  chat(messages: Message[], options?: ChatOptions): Answer;

  /** Continues a text, or token ids, as they stand. */
  generate(prompt: string | ArrayLike<number>, options?: GenerateOptions): Answer;

  tokenize(text: string, options?: TokenizeOptions): Promise<Uint32Array>;
  detokenize(tokens: ArrayLike<number>, options?: { special?: boolean; signal?: AbortSignal }): Promise<string>;

  /** What the model is and where it runs. */
  info(): Info;

  /** Rates and memory so far. */
  stats(options?: { signal?: AbortSignal }): Promise<Stats>;

  /** Ends the worker and gives all memory back. Answers under way fail with code `closed`. */
  free(): void;
}

/**
 * Where a model's bytes come from: a file, an address (fetched by range requests, so that a broken download goes on), a name at
 * the hub (`hf.co/user/repo:QUANT` or `user/repo:QUANT`, as `ir pull` has them; relative addresses begin with `./`), a
 * file of the origin private file system, an entry of `Ir.cache.list()`, or bytes in order with their length as
 * `options.size`. Of a split model (`NAME-00001-of-00003.gguf`): all of its files or addresses as a list in any order, the address
 * of one part, or its name at the hub.
 */
export type Source =
  | Part
  | readonly Part[]
  | FileList
  | Pick<CacheEntry, 'key'>
  | AsyncIterable<Uint8Array | ArrayBuffer>
  | Iterable<Uint8Array | ArrayBuffer>
  | ReadableStream<Uint8Array>;

/** A file, or a part of a split model. */
export type Part = Blob | string | URL | FileSystemFileHandle;

export interface LoadOptions {
  /** `auto` takes a GPU that is real, else the CPU. */
  device?: 'auto' | 'gpu' | 'cpu';
  /** Tokens of a conversation at most; the model's own length, as memory allows, where absent. */
  contextLength?: number;
  /** Threads on the CPU, 16 at most; all cores where absent. Needs a cross-origin isolated page. */
  threads?: number;
  /** Keep the file in this browser. On for addresses, off for files, where absent. */
  cache?: boolean;
  /** Bytes that keys and values may take. */
  cacheBytes?: number;
  /**
   * The file's SHA-256 in hexadecimal; loading fails with code `integrity` where it differs. Of a model in parts a list: in the
   * order of the files that were given, or of the parts where one address stands for all.
   */
  sha256?: string | readonly string[];
  /** The file's length in bytes, or a list as `sha256` has it: required for iterables, checked for others. */
  size?: number | readonly number[];
  /** Another address of the hub, for names; Hugging Face's where absent. */
  hub?: string;
  /** A name for the file, where the source has none. */
  name?: string;
  signal?: AbortSignal;
  onProgress?(progress: Progress): void;
  /** About choices: which device and build and why, or that the file could not be kept. */
  onNotice?(notice: Notice): void;
  /** Makes the worker, for pages with a policy of their own; it must run the module `ir-web/worker`. */
  createWorker?(): Worker;
  /** Takes this build of the module instead of the best that the browser has. */
  variant?: 'plain' | 'relaxed' | 'threads';
  /** Uses f16 and subgroups on software adapters too, where they are no faster. */
  allForms?: boolean;
  /** Tokens that a GPU computes one behind the other before it reports, at most; as its measured times say where absent. */
  chain?: number;
}

export interface Notice {
  /**
   * `no-gpu`: the CPU computes, for want of a GPU. `build`: which build of the module runs, and why. `wrong-simd`: this
   * browser gets the faster build's sums wrong, so a slower one runs. `memory-only`: the file could not be kept.
   */
  code: 'no-gpu' | 'build' | 'wrong-simd' | 'memory-only';
  /** One sentence. */
  message: string;
}

export interface Progress {
  /** Bytes so far. */
  loaded: number;
  /** Bytes of the file, or of all parts. */
  total: number;
  bytesPerSecond: number;
  /** Whether the bytes so far came from the cache. */
  cached: boolean;
}

export interface Message {
  role: 'system' | 'user' | 'assistant' | 'tool' | (string & {});
  content: string | null;
  reasoning_content?: string;
  tool_calls?: unknown[];
  name?: string;
  tool_call_id?: string;
}

/** Each of the sampling's fields is the file's own recommendation where absent. */
export interface GenerateOptions {
  maxTokens?: number;
  /** The answer ends before the first of these. */
  stop?: string[];
  /** 0 always takes the most likely token. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  typicalP?: number;
  repeatPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  /** Tokens that the penalties look back on; -1 for all. */
  repeatLastN?: number;
  /** The same seed, prompt and device give the same text; random where absent. */
  seed?: number;
  /** Pairs of a token and what is added to its logit; `null` bans it. */
  logitBias?: [token: number, bias: number | null][];
  /** Reports the log-probability of each token and of this many others. */
  logprobs?: number;
  /**
   * Holds the answer to a form, behind the reasoning where there is some. The first one fetches a second module. The answer
   * fails with code `request`, `unsupported` or `limit` where it cannot be held to, `network` where the module does not come;
   * and with `limit` where the format of another answer broke that module, which is made anew then.
   */
  format?: Format;
  /** Control tokens that a message spells are those tokens; text otherwise. */
  parseSpecial?: boolean;
  ignoreEos?: boolean;
  /** Control tokens appear in the text. */
  showSpecial?: boolean;
  signal?: AbortSignal;
}

/**
 * What an answer is, from its first character to its last: a JSON object, JSON that a schema describes, a text that a
 * regular expression matches as a whole (Rust's syntax, without look-around), or one of a grammar in llguidance's Lark
 * or llama.cpp's GBNF. Schemas that ask for what cannot be held to are refused.
 */
export type Format = 'json' | { schema: object | boolean } | { regex: string } | { lark: string } | { gbnf: string };

export interface ChatOptions extends GenerateOptions {
  /** Asks a reasoning model to think, or not to. */
  think?: boolean;
  /** Definitions of tools in OpenAI's form. The model may call them, or not. */
  tools?: unknown[];
}

export interface TokenizeOptions {
  /** Puts the model's own tokens (BOS) around the text. */
  addSpecial?: boolean;
  /** Reads control tokens in the text; on where absent. */
  parseSpecial?: boolean;
  signal?: AbortSignal;
}

/** A reply under way. Leaving a `for await` loop early ends it. */
export interface Answer extends AsyncIterable<Piece> {
  /** The whole, once it has ended; rejects where the iteration would throw. */
  readonly finished: Promise<Finished>;
  /** The whole text. */
  text(): Promise<string>;
  /**
   * Ends the reply with reason `cancelled`: no further piece comes, and the engine computes none after the token under
   * way when it hears of it. `usage` counts what was computed, `text` is what had come.
   */
  stop(): void;
}

export interface Piece {
  /** New text of the answer; may be empty. */
  text: string;
  /** New text of the reasoning before it. */
  thinking: string;
  /** New parts of calls of tools. */
  calls?: CallPart[];
  token?: number;
  logprobs?: { chosen: Logprob; top: Logprob[] };
}

/**
 * A part of a call: it begins, its arguments (together the JSON text of an object) go on, it is complete; or it is none after
 * all, and what was written of it follows as text. Calls are numbered from 0.
 */
export type CallPart =
  | { type: 'start'; index: number; id: string; name: string }
  | { type: 'arguments'; index: number; fragment: string }
  | { type: 'end'; index: number; call: ToolCall }
  | { type: 'broken'; index: number };

/** A call of a tool in OpenAI's form, with its arguments as an object. */
export interface ToolCall {
  id?: string;
  type: 'function';
  function: { name: string; arguments: unknown };
}

export interface Logprob {
  id: number;
  logprob: number;
  text: string;
  bytes: number[];
}

export interface Finished {
  text: string;
  thinking: string;
  /** Calls of the tools that were given, in order. */
  toolCalls: ToolCall[];
  reason: 'stop' | 'length' | 'tool_calls' | 'cancelled';
  /** The number, in `stop` of the options, of the text that ended it; `null` where none did. */
  stop: number | null;
  usage: Usage;
}

export interface Usage {
  promptTokens: number;
  /** Those of them that an earlier call had computed. */
  cachedTokens: number;
  completionTokens: number;
  queuedSeconds: number;
  promptSeconds: number;
  generationSeconds: number;
}

export interface Info {
  name: string;
  architecture: string | null;
  sizeLabel: string | null;
  license: string | null;
  fileBytes: number;
  modelContextLength: number;
  contextLength: number;
  vocabulary: number;
  layers: number;
  device: { kind: 'cpu' | 'gpu'; name: string; forms: string | null; build: string };
  canChat: boolean;
  canSwitchThinking: boolean;
  supportsSystem: boolean;
  sampling: Required<
    Pick<
      GenerateOptions,
      | 'temperature' | 'topK' | 'topP' | 'minP' | 'typicalP'
      | 'repeatPenalty' | 'presencePenalty' | 'frequencyPenalty' | 'repeatLastN'
    >
  >;
}

export interface Stats {
  loadSeconds: number;
  loadBytesPerSecond: number | null;
  promptTokens: number;
  promptTokensPerSecond: number | null;
  generatedTokens: number;
  generatedTokensPerSecond: number | null;
  /** Bytes of the module's own memory; a GPU's are not in it. */
  memoryBytes: number;
  cachePages: number;
  freeCachePages: number;
  waiting: number;
  running: number;
}

export interface Cache {
  /** Newest first. */
  list(): Promise<CacheEntry[]>;
  /** Says whether there was one. */
  delete(key: string): Promise<boolean>;
  clear(): Promise<void>;
  /** Bytes that may still be kept. */
  room(): Promise<number>;
}

export interface CacheEntry {
  key: string;
  name: string;
  /** Its address, or that of a part, which stands for all; `null` for files from disk. */
  source: string | null;
  size: number;
  /** Files that it consists of: more than one where the model is split. */
  parts: number;
  /** Bytes that are there. */
  stored: number;
  complete: boolean;
  /** Milliseconds since 1970. */
  added: number;
}

export type IrErrorCode =
  /** The file is no GGUF, damaged or cut short. */
  | 'format'
  /** The file or the browser asks for what this version cannot do. */
  | 'unsupported'
  /** A memory or context budget would be exceeded. */
  | 'limit'
  /** A value is out of range or unknown. */
  | 'request'
  /** The chat template refused the messages. */
  | 'template'
  /** A GPU that is missing or failed; `lost` where it is gone and loading again helps. */
  | 'device'
  | 'lost'
  /** The file cannot be reached; `http` where the server refused. */
  | 'network'
  | 'http'
  /** Length, version or SHA-256 are not what they should be. */
  | 'integrity'
  /** The file or iterable failed while it was read. */
  | 'source'
  | 'storage'
  | 'quota'
  /** The model was freed. */
  | 'closed'
  /** The engine stopped: most often memory ran out. */
  | 'internal';

export class IrError extends Error {
  readonly code: IrErrorCode;
  constructor(code: IrErrorCode, message: string, options?: { cause?: unknown });
}
