//! A list: every command and flag of `ir` with the text that `--help` shows, and how their values are read. Nothing
//! else happens here.

mod device;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

pub(crate) use device::{ActivationsChoice, DeviceArgs, DeviceChoice, ExpertsChoice, KvChoice, LayersChoice};

/// Runs language models from GGUF files on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "ir",
    version,
    about,
    long_about = "Runs language models from GGUF files on this machine: nothing is sent anywhere.\n\n\
        MODEL is a GGUF file, a name that `ir list` shows, or ir-tiny, a toy model that is built in. `ir pull` and `ir run` \
        also take the names of models that are elsewhere: NAME[:TAG], USER/REPO[:QUANT], HOST/NAMESPACE/NAME[:TAG], and \
        addresses of .gguf files.",
    after_help = "See `ir help COMMAND` for everything a command can do.",
    after_long_help = MANUAL,
    arg_required_else_help = true,
    disable_help_subcommand = false,
    infer_long_args = false
)]
pub(crate) struct Cli {
    /// Settings instead of ir/ir.toml in your configuration folder; see `ir config`
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub(crate) config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const MANUAL: &str = "\
Examples:
  ir run ir-tiny \"Tell me a story about a fox and a drum\"
  ir run model.gguf                          chat in the terminal
  ir run user/repo:Q4_K_M                    fetch a model, and chat with it
  git diff | ir run model.gguf \"Write a commit message for this:\"
  ir info model.gguf --tensors
  ir bench model.gguf

Exit codes:
  0    done
  1    it failed, and standard error says why
  2    the command line is wrong, or no model of that name is known
  130  stopped by Ctrl-C

Environment:
  IR_MODELS  the folder of models, as --models; any other flag likewise: IR_CTX, IR_API_KEY, ...
  IR_CONFIG  the file of settings, as --config
  HF_TOKEN   your key for Hugging Face, shown to nobody else; HF_ENDPOINT, HF_HOME, HF_HUB_CACHE as its own tools have them
  IR_REGISTRY, OLLAMA_MODELS, HTTPS_PROXY, NO_PROXY   a registry, another store to read, and proxies
  NO_COLOR   write no colours

See `ir help COMMAND` for everything a command can do.";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask a model, or chat with it in the terminal
    #[command(after_long_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Serve models to programs that speak Ollama's, OpenAI's or Anthropic's API
    #[command(after_long_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// List the models that are known by name
    #[command(after_long_help = LIST_HELP)]
    List(ListArgs),
    /// Start a coding client (Claude Code, Codex, OpenCode, ...) that asks models of this machine
    #[command(after_long_help = LAUNCH_EXAMPLES)]
    Launch(LaunchArgs),
    /// Show what a running server has loaded
    #[command(after_long_help = PS_HELP)]
    Ps(PsArgs),
    /// Have a running server unload models
    #[command(after_long_help = STOP_EXAMPLES)]
    Stop(StopArgs),
    /// Show what a model file holds
    #[command(after_long_help = INFO_EXAMPLES)]
    Info(InfoArgs),
    /// Fetch a model; what was begun is gone on with
    #[command(after_long_help = PULL_EXAMPLES)]
    Pull(PullArgs),
    /// Show a model's details, template, parameters and licence
    #[command(after_long_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Give a model another name; it takes no room
    #[command(after_long_help = CP_EXAMPLES)]
    Cp(CpArgs),
    /// Remove models, and what no other model needs of them
    #[command(after_long_help = RM_EXAMPLES)]
    Rm(RmArgs),
    /// Make a model of a Modelfile, of another model or of a file
    #[command(after_long_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// Send a model to a registry
    #[command(after_long_help = PUSH_EXAMPLES)]
    Push(PushArgs),
    /// Search the hub for models
    #[command(after_long_help = SEARCH_EXAMPLES)]
    Search(SearchArgs),
    /// Read every stored file again and compare it with its digest
    #[command(after_long_help = VERIFY_HELP)]
    Verify(VerifyArgs),
    /// Remove stored files that no model needs, and old unfinished downloads
    #[command(after_long_help = GC_HELP)]
    Gc(GcArgs),
    /// Show how a model cuts a text into tokens
    #[command(after_long_help = TOKENIZE_EXAMPLES)]
    Tokenize(TokenizeArgs),
    /// Compute raw logits of a prompt, to compare engines
    #[command(after_long_help = LOGITS_EXAMPLES)]
    Logits(LogitsArgs),
    /// Turn texts into embeddings: vectors that are close where texts mean the like
    #[command(after_long_help = EMBED_EXAMPLES)]
    Embed(EmbedArgs),
    /// Score how well texts answer a query, by a model made to rank
    #[command(after_long_help = RERANK_EXAMPLES)]
    Rerank(RerankArgs),
    /// Measure the speed of prompts and of generation
    #[command(after_long_help = bench_examples())]
    Bench(BenchArgs),
    /// Measure how well a model predicts a text
    #[command(after_long_help = PERPLEXITY_EXAMPLES)]
    Perplexity(PerplexityArgs),
    /// Measure which columns of a model's matrices matter for a text, for `ir quantize --imatrix`
    #[command(after_long_help = IMATRIX_EXAMPLES)]
    Imatrix(ImatrixArgs),
    /// Write a model with smaller weights
    #[command(after_long_help = QUANTIZE_EXAMPLES)]
    Quantize(QuantizeArgs),
    /// Write a folder of safetensors as a GGUF file
    #[command(after_long_help = CONVERT_EXAMPLES)]
    Convert(ConvertArgs),
    /// Cut a GGUF file into the parts of a split model
    #[command(after_long_help = SPLIT_EXAMPLES)]
    Split(SplitArgs),
    /// Join the parts of a split model into one GGUF file
    #[command(after_long_help = MERGE_EXAMPLES)]
    Merge(MergeArgs),
    /// Compare two devices op by op, to find the op that one computes wrongly
    #[command(after_long_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// List the GPUs of this machine
    #[command(after_long_help = DEVICES_HELP)]
    Devices(DevicesArgs),
    /// Show a command's settings and where each comes from: flags, environment, ir.toml
    #[command(after_long_help = CONFIG_EXAMPLES)]
    Config(ConfigArgs),
    /// Print a script that completes commands in a shell
    #[command(after_long_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  ir run                                     chat with the built-in toy model
  ir run ir-tiny \"Who are you?\"              one question
  ir run model.gguf                          chat with a model
  cat notes.txt | ir run model.gguf \"Summarise this:\"
  ir run model.gguf --raw -n 40 \"Once upon a time\"
  ir run model.gguf --temp 0 --seed 1 \"...\"  the same answer every time
  ir run model.gguf --lora adapter.gguf      with a LoRA adapter

A single argument is always MODEL. The prompt is the argument and what is piped in, joined by a blank line. \
With no prompt and a terminal, a chat begins: /help there lists what can be typed.";

const SERVE_EXAMPLES: &str = "\
Examples:
  ir serve                                   the models folder and ir-tiny, on 127.0.0.1:11434
  ir serve model.gguf --parallel 8
  ir serve model.gguf --lora first.gguf --lora second.gguf:0.5
  ir serve --addr 0.0.0.0:11434 --api-key SECRET
  ir serve --addr unix:/run/user/1000/ir.sock
  curl http://127.0.0.1:11434/api/generate -d '{\"model\": \"ir-tiny\", \"prompt\": \"Who are you?\"}'

Models are loaded when they are asked for. There is no TLS: put a proxy in front for that.";

const LIST_HELP: &str = "\
Models are those that were pulled or made, the .gguf files below the models folder (--models, else IR_MODELS, else \
`ir/models` in the user's data folder; the command prints where that is), and those of Ollama (OLLAMA_MODELS), of the Hugging \
Face cache (HF_HUB_CACHE, HF_HOME) and of LM Studio, which are used where they are and never changed.";

const LAUNCH_EXAMPLES: &str = "\
Examples:
  ir launch claude                           Claude Code, with the server's first model
  ir launch codex --model qwen3-8b
  ir launch opencode --print                 shows what would be set, and starts nothing
  ir launch aider -- --no-git                flags of the client's own stand behind --

Clients: aider, claude, cline, codex, continue, copilot, goose, opencode, qwen, zed. Each is told the server's address and \
the model by its environment, by flags, or by a file of its own; a file that is yours is shown and never changed. Where no \
server answers at --addr, one is started, and ends with the client.";

const PS_HELP: &str = "\
The server is that of --addr, 127.0.0.1:11434 if not given: `ir serve`, or another that speaks Ollama's API.";

const STOP_EXAMPLES: &str = "\
Examples:
  ir stop fox
  ir stop fox --addr 127.0.0.1:8080

Answers that are being written are finished first. Models that the server was started to pin stay.";

const PULL_EXAMPLES: &str = "\
Examples:
  ir pull smollm2:135m                       from the registry
  ir pull user/repo:Q5_K_M                   a quantisation of a repository on Hugging Face
  ir pull user/repo                          Q4_K_M, or what is nearest to it
  ir pull hf.co/user/repo:file.gguf@v1.0     a file of a revision
  ir pull 127.0.0.1:5000/me/model:tag        from a registry by its host
  ir pull https://host.example/x.gguf#sha256=HEX

Files come in several ranges at once. After a broken line it tries again; after Ctrl-C, or a crash, the next pull goes on \
where this one was. Every file is compared with its SHA-256 where that is known. Repositories that are private or ask for \
consent need HF_TOKEN.";

const SHOW_EXAMPLES: &str = "\
Examples:
  ir show smollm2:135m
  ir show smollm2:135m --modelfile > Modelfile
  ir show smollm2:135m --json | jq .context

`ir info` shows what stands in the model's file.";

const CP_EXAMPLES: &str = "\
Examples:
  ir cp user/repo:Q4_K_M fox
  ir cp fox 127.0.0.1:5000/me/fox:v1         a name to push by";

const RM_EXAMPLES: &str = "\
Examples:
  ir rm fox
  ir rm user/repo:Q4_K_M user/repo:Q5_K_M

Files in the models folder, and other programs' models, are not the store's to remove.";

const CREATE_EXAMPLES: &str = "\
Examples:
  ir create fox -f Modelfile
  ir create fox --from smollm2:135m
  ir create fox --from ./model.gguf          copies the file into the store

A Modelfile has lines FROM, PARAMETER, TEMPLATE, SYSTEM, MESSAGE, LICENSE and REQUIRES, as Ollama's have. `ir run` uses \
the system prompt, the messages and the parameters. Templates in Go's language are kept and not run: the model's own \
Jinja template is used, or its family's.";

const PUSH_EXAMPLES: &str = "\
Examples:
  ir cp fox 127.0.0.1:5000/me/fox && ir push 127.0.0.1:5000/me/fox

The registry must take models without a login: accounts of registries are not known here yet.";

const SEARCH_EXAMPLES: &str = "\
Examples:
  ir search qwen3 0.6b
  ir search smollm -n 20 --json

Shows repositories with GGUF files, those that are fetched most first: what a pull of the name would fetch, its size, and \
whether that fits this machine's memory.";

const VERIFY_HELP: &str = "\
The exit code is 1 if anything is wrong.";

const GC_HELP: &str = "\
Models that `ir list` shows stay whole. Unfinished downloads are kept for a week, so that a pull can go on.";

const INFO_EXAMPLES: &str = "\
Examples:
  ir info model.gguf
  ir info model.gguf --tensors
  ir info model.gguf --plan                  the recorded computation
  ir info model.gguf --fit                   what context fits which device
  ir info model.gguf --json | jq .parameters
  ir info adapter.gguf                       what a LoRA adapter changes";

const IMATRIX_EXAMPLES: &str = "\
Examples:
  ir imatrix model-f16.gguf -f text.txt -o imatrix.gguf
  ir quantize model-f16.gguf small.gguf IQ4_XS --imatrix imatrix.gguf

The file is as llama-imatrix writes it. A text like what the model will be asked is best, some hundred windows of it.";

const QUANTIZE_EXAMPLES: &str = "\
Examples:
  ir quantize model-f16.gguf model-q4.gguf Q4_K_M
  ir quantize model-f16.gguf - Q4_K_M --dry-run      what each tensor would be, and the size
  ir quantize model-f16.gguf small.gguf IQ4_XS --imatrix imatrix.gguf
  ir quantize ./folder model.gguf Q8_0 --tensor-type 'ffn_down=Q6_K'

Types: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q2_K_S, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M, Q5_K_S, Q5_K_M, \
Q6_K, IQ4_NL, IQ4_XS, IQ3_S, IQ3_M, TQ2_0, MXFP4, MXFP4_MOE. As in llama.cpp, matrices that matter more get more bits; --pure \
gives all the same. An importance matrix is made by `ir imatrix` or llama-imatrix. The output appears when it is whole.";

const CONVERT_EXAMPLES: &str = "\
Examples:
  ir convert ./folder model.gguf                     the types that the folder has
  ir convert ./folder model.gguf --type F16
  ir convert model.gguf merged.gguf --merge adapter.gguf:0.8

The folder holds config.json, safetensors and a tokenizer, as Hugging Face publishes models. `ir run ./folder` runs it as it \
is, without converting.";

const SPLIT_EXAMPLES: &str = "\
Examples:
  ir split model.gguf parts/model                    parts/model-00001-of-00003.gguf and so on
  ir split model.gguf model --max-size 2G

As llama-gguf-split does it: M and G are 10^6 and 10^9 bytes of tensors. Split models run as they are: \
`ir run model-00001-of-00003.gguf`. What is there already is not written over.";

const MERGE_EXAMPLES: &str = "\
Examples:
  ir merge model-00001-of-00003.gguf model.gguf

Any part stands for the set; the others lie beside it. What is there already is not written over.";

const CHECK_EXAMPLES: &str = "\
Examples:
  ir check model.gguf --device gpu           a GPU against the processor's definition
  ir check model.gguf --device gpu --gpu-forms base
  ir check model.gguf --device cpu           fast kernels against the definition

Every op gets the same inputs on both devices. The exit code is 1 where one disagrees, and its line says \
which.";

const DEVICES_HELP: &str = "\
Numbers are those of --device gpu:N. A software adapter computes on the processor: it shows that results are \
right, and is slower than --device cpu.";

const TOKENIZE_EXAMPLES: &str = "\
Examples:
  ir tokenize model.gguf \"Hello world\"
  ir tokenize model.gguf -f book.txt --json
  echo -n Hello | ir tokenize model.gguf";

const LOGITS_EXAMPLES: &str = "\
Examples:
  ir logits model.gguf \"Hello\" -n 16
  ir logits model.gguf --ids 1,15043,3186 -o logits.npy
  ir logits model.gguf \"Hello\" --simd scalar --activations f32 --kv-type f32
  ir logits model.gguf \"Hello\" --ctx 4096     as in a context of that length

Prints {\"ids\": [...], \"greedy\": [...]}: the prompt's token ids and N greedily generated ones. FILE gets \
float32 logits in NumPy's format, one row for each position of the prompt. Special tokens in the prompt are parsed, \
and BOS is put before it where the model wants one.";

const RERANK_EXAMPLES: &str = "\
Examples:
  ir rerank reranker.gguf \"what is a fox?\" \"A fox is an animal.\" \"Drums are loud.\"
  ir rerank reranker.gguf \"what is a fox?\" -f documents.txt    one text a line
  ir rerank reranker.gguf \"what is a fox?\" -f documents.txt --json";

const EMBED_EXAMPLES: &str = "\
Examples:
  ir embed model.gguf \"a red fox\" \"an apple\" --similarity
  ir embed model.gguf -f lines.txt -o embeddings.npy
  ir embed model.gguf \"a red fox\" --json | jq .embeddings[0]

Prints a JSON array for each text, one to a line, in the texts' order. Without TEXT every line of standard input is a \
text. Special tokens are parsed, and BOS and EOS put around a text where the model wants them.

The file says how the rows of a text become its embedding (pooling). Files of models made to generate do not; their \
embedding is that of the last token, as in Ollama. Models that read a text in both directions (BERT and its kin) are \
not supported yet.";

fn bench_examples() -> String {
    format!("{BENCH_EXAMPLES}{}.", crate::synthetic::type_names())
}

const BENCH_EXAMPLES: &str = "\
Examples:
  ir bench model.gguf
  ir bench model.gguf -p 128,512 -n 0 -t 1,2,4
  ir bench --synthetic 1b-q4_0               no file needed: random weights of that shape
  ir bench --synthetic mixture-q8_0 --write mixture.gguf
  ir bench model.gguf --device gpu --profile

Tests: ppN computes a prompt of N tokens, tgN generates N tokens one by one. Each is run once to warm up and \
then -r times; the table shows tokens per second, mean and standard deviation.

On a GPU a line tells what a decode step takes: the host's time until all is submitted, dispatches, and the \
device's time where it has timestamps. `host:` is the same step on a backend that does nothing.

Synthetic shapes: tiny, 135m (SmolLM2), 1b (Llama 3.2), 3b (Llama 3.2), 8b (Llama 3.1); mixture (as Qwen3-MoE), window \
(Gemma 3), hybrid (Qwen3.5), latent (DeepSeek-V2), scaled down; tiny-mixture and so on. Each is followed by a type: \
";

const PERPLEXITY_EXAMPLES: &str = "\
Examples:
  ir perplexity model.gguf -f wiki.test.raw
  ir perplexity model.gguf -f book.txt --ctx 1024
  ir perplexity model-f16.gguf -f book.txt --save-all-logits kept.bin
  ir perplexity model-q4.gguf --kl-base kept.bin     how far quantising moved the predictions

The method is llama-perplexity's: windows of --ctx tokens, each beginning with BOS where the model wants one, \
of which the second half is counted. Kept predictions are in llama-perplexity's form too: its --kl-divergence-base.";

const CONFIG_EXAMPLES: &str = "\
Examples:
  ir config                                  settings of `ir serve`
  ir config run
  ir config serve --ctx 4096

Flags go over the environment (--ctx is IR_CTX), the environment over ir.toml, the file over what is built in. The file \
is --config, else IR_CONFIG, else ir/ir.toml in your configuration folder. Its keys are the flags' names; those at the top \
count for every command that has them, those in a table for that command:

  models = \"/data/models\"
  [serve]
  parallel = 8
  cors = [\"https://chat.example\"]";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  ir completions bash > ~/.local/share/bash-completion/completions/ir
  ir completions zsh > ~/.zfunc/_ir
  ir completions fish > ~/.config/fish/completions/ir.fish
  ir completions powershell >> $PROFILE";

/// Where models are, here and elsewhere.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Model files")]
pub(crate) struct StoreArgs {
    /// Folder of models known by name [default: IR_MODELS, else ir/models in your data folder]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) models: Option<PathBuf>,
    /// Address of the hub that USER/REPO is at [default: HF_ENDPOINT, else Hugging Face's]
    #[arg(long, value_name = "ADDRESS", hide_short_help = true)]
    pub(crate) hub: Option<String>,
    /// Address of the registry that NAME or NAME:TAG is at [default: IR_REGISTRY, else Ollama's]
    #[arg(long, value_name = "ADDRESS", hide_short_help = true)]
    pub(crate) registry: Option<String>,
}

/// A server that runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// Where the server listens; unix:PATH is a socket
    #[arg(long, default_value = "127.0.0.1:11434", value_name = "HOST:PORT")]
    pub(crate) addr: String,
    /// The key that it wants, where it wants one
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Vec<String>,
}

/// Arguments of `ir launch`.
#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    /// The client, such as claude, codex or opencode
    pub(crate) client: String,
    /// The model, by a name that `ir list` shows [default: the server's first]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Show what would be set and started, and do nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// Write the client's file without asking
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Flags of the client's own
    #[arg(last = true, value_name = "FLAGS")]
    pub(crate) flags: Vec<std::ffi::OsString>,
}

/// Arguments of `ir ps`.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Arguments of `ir stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The models
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) model: Vec<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Where models are found and how their files are read.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Model files")]
pub(crate) struct PlaceArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Read the file into memory instead of mapping it
    #[arg(long)]
    pub(crate) no_mmap: bool,
}

/// Where models are found and how their files are read, where a tokenizer is needed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Model files")]
pub(crate) struct FileArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Pre-tokenizer to use instead of the one that the file names
    #[arg(long, value_name = "NAME")]
    pub(crate) tokenizer_pre: Option<String>,
}

/// Adapters.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Model files")]
pub(crate) struct LoraArgs {
    /// LoRA adapter beside the model, a GGUF file or a folder of PEFT, and how much of it is used [default: 1]; several may be
    /// given
    #[arg(long, value_name = "FILE[:SCALE]", value_delimiter = ',', value_hint = ValueHint::AnyPath)]
    pub(crate) lora: Vec<String>,
    /// As --lora, as llama.cpp writes it
    #[arg(long, value_name = "FILE:SCALE", value_delimiter = ',', hide = true)]
    pub(crate) lora_scaled: Vec<String>,
}

/// A number of threads.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Computing")]
pub(crate) struct ThreadArgs {
    /// Threads to compute with [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

/// A whole number, or -1 for "none", as users of llama.cpp write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) Option<u64>);

impl Number {
    /// The number as a count; one that is too large for this machine is the largest.
    pub(crate) fn count(self) -> Option<usize> {
        self.0.map(|n| usize::try_from(n).unwrap_or(usize::MAX))
    }
}

impl std::str::FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Number, String> {
        match text {
            "-1" => Ok(Number(None)),
            _ => text
                .parse()
                .map(|n| Number(Some(n)))
                .map_err(|_| format!("give a whole number from -1 to {}", u64::MAX)),
        }
    }
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("give a whole number from 0 to {}", usize::MAX))
}

fn one_or_more(text: &str) -> Result<usize, String> {
    count(text).ok().filter(|n| *n > 0).ok_or_else(|| format!("give a whole number from 1 to {}", usize::MAX))
}

fn context(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|n| *n >= 2);
    number
        .ok_or_else(|| format!("--ctx must be at least 2 (a token of prompt and one of answer), at most {}", u32::MAX))
}

fn token_id(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| "token ids are whole numbers joined by commas, as in 1,15043,3186".to_owned())
}

/// `ir check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A GGUF file, a name that `ir list` shows, or ir-tiny
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) model: String,
    /// What the model reads meanwhile
    #[arg(default_value = "The quick brown fox jumps over the lazy dog, and the dog sleeps on in the warm sun.")]
    pub(crate) prompt: String,
    /// Token ids instead of a prompt, for models without a tokenizer
    #[arg(long, value_name = "ID,...", value_delimiter = ',', value_parser = token_id, conflicts_with = "prompt")]
    pub(crate) ids: Option<Vec<u32>>,
    /// What is taken as true: the processor's definition of every op
    #[arg(long, default_value = "cpu", value_parser = ["cpu"])]
    pub(crate) against: String,
    /// Relative error that is allowed at the end of each group of ops [default: what the device's forms allow]
    #[arg(long, value_name = "ERROR")]
    pub(crate) tolerance: Option<f64>,
    /// Print a line for every group of ops
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
}

/// `ir devices`.
#[derive(Debug, Args)]
pub(crate) struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ir serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// GGUF files to serve beside the models folder and ir-tiny, by their file names; loaded at the start
    #[arg(value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub(crate) model: Vec<String>,
    /// Address to listen on; port 0 takes any that is free; unix:PATH is a socket that only you may use
    #[arg(long, default_value = "127.0.0.1:11434", value_name = "HOST:PORT")]
    pub(crate) addr: String,
    /// Requests of one model that are computed together
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = one_or_more)]
    pub(crate) parallel: usize,
    /// Requests that may wait beyond those that run
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = count)]
    pub(crate) queue: usize,
    /// Tokens of context, prompt and answer together [default: the model's own, as far as memory allows]
    #[arg(long, value_name = "N", value_parser = context)]
    pub(crate) ctx: Option<u32>,
    /// How long a model stays loaded after its last request: 5m, 1h30m, seconds; negative is for ever
    #[arg(long, default_value = "5m", value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) keep_alive: String,
    /// Models loaded at once, at most; 0: as many as --memory holds
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = count)]
    pub(crate) max_models: usize,
    /// A model that is loaded at the start and never unloaded; may be given several times
    #[arg(long, value_name = "MODEL")]
    pub(crate) pin: Vec<String>,
    /// GiB that loaded models may take together; a single one may take more
    #[arg(long, default_value_t = 16, value_name = "GIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) memory: u32,
    /// Keep the starts of conversations in this folder, to go on from them after a restart too
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: Option<PathBuf>,
    /// GiB that the cache folder may take
    #[arg(long, default_value_t = 8, value_name = "GIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) cache_disk: u32,
    /// MiB of memory in which the starts of conversations are kept when a GPU's cache or a model's unloading drops them
    #[arg(long, default_value_t = 0, value_name = "MIB")]
    pub(crate) cache_ram: u32,
    /// Seconds a request may take [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) deadline: Option<u32>,
    /// A key that clients must send as a bearer token; may be given several times
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Vec<String>,
    /// Origins of web pages that may ask, beside this machine's; * is any
    #[arg(long, value_name = "ORIGIN,...", value_delimiter = ',')]
    pub(crate) cors: Vec<String>,
    /// Listen beyond this machine without a key
    #[arg(long)]
    pub(crate) no_key: bool,
    /// Another name for a model, for programs that ask for one that is not here; * stands for anything, as in claude-*=M
    #[arg(long, value_name = "NAME=MODEL")]
    pub(crate) alias: Vec<String>,
    /// Folder of the browser page, shown at /ui [default: one beside this program, where there is one]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) ui: Option<PathBuf>,
    /// Seconds that running requests get to finish when the server is told to end
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) grace: u32,
    /// What is written to the log, on standard error
    #[arg(long, value_enum, default_value_t = LogLevel::Info, value_name = "LEVEL")]
    pub(crate) log: LogLevel,
    /// How the log is written
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
    /// Write prompts into the log too
    #[arg(long)]
    pub(crate) log_prompts: bool,
    /// Run models that are larger than the memory too: their weights are read from disk again and again
    #[arg(long)]
    pub(crate) any_size: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
}

/// `ir config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The command whose settings are shown
    #[arg(default_value = "serve")]
    pub(crate) command: String,
    /// Flags as they would be given to it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) flags: Vec<std::ffi::OsString>,
}

/// How `ir serve` writes its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// A JSON object to a line
    Json,
}

/// What `ir serve` writes to its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Nothing
    Off,
    /// What went wrong
    Error,
    /// And what may
    Warn,
    /// And a line for every request
    Info,
    /// And more
    Debug,
}

/// `ir run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A GGUF file, a name that `ir list` shows, or ir-tiny [default: ir-tiny]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) model: Option<String>,
    /// What to ask
    pub(crate) prompt: Option<String>,
    /// Instructions that come before the chat
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Continue the prompt as it is, without the chat template
    #[arg(long)]
    pub(crate) raw: bool,
    /// Reasoning before the answer: ask for it, ask for none, or have it and not show it [default: the model's own]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) think: Option<Think>,
    /// Tokens to generate at most; -1 is no limit [default: until the context is full]
    #[arg(short = 'n', long = "n-predict", value_name = "N", allow_negative_numbers = true)]
    pub(crate) n: Option<Number>,
    /// Tokens of context, prompt and answer together [default: the model's own, as far as memory allows]
    #[arg(long, value_name = "N", value_parser = context)]
    pub(crate) ctx: Option<u32>,
    /// Print counts, times, rates and memory to standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) grammar: GrammarArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Run a model that is larger than the memory too: its weights are read from disk again and again
    #[arg(long)]
    pub(crate) any_size: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
}

/// What answers must look like: at most one of these.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Grammar")]
#[group(multiple = false)]
pub(crate) struct GrammarArgs {
    /// Hold answers to a grammar in GBNF, as llama.cpp has it
    #[arg(long, value_name = "GBNF")]
    pub(crate) grammar: Option<String>,
    /// Hold answers to the grammar in a file: Lark where its name ends in .lark, else GBNF
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) grammar_file: Option<PathBuf>,
    /// Hold answers to JSON of this schema: its text, or a file; {} is any JSON
    #[arg(short = 'j', long, value_name = "SCHEMA")]
    pub(crate) json_schema: Option<String>,
    /// Hold answers to a regular expression
    #[arg(long, value_name = "REGEX")]
    pub(crate) regex: Option<String>,
}

/// How tokens are chosen. Defaults are the file's own (`general.sampling.*`), else those named here.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Sampling", allow_negative_numbers = true)]
pub(crate) struct SamplingArgs {
    /// Temperature: 0 always takes the likeliest token [default: 0.8]
    #[arg(long, value_name = "T")]
    pub(crate) temp: Option<f32>,
    /// Keep the K likeliest tokens; 0 or -1 keeps all [default: 40]
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub(crate) top_k: Option<Number>,
    /// Keep the likeliest tokens that together reach this probability; 1 keeps all [default: 0.95]
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,
    /// Keep tokens at least this share as likely as the likeliest; 0 keeps all [default: 0.05]
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,
    /// Make tokens of the last 64 less likely; 1 is off [default: 1]
    #[arg(long, value_name = "X")]
    pub(crate) repeat_penalty: Option<f32>,
    /// Seed of the random numbers; -1 is a new one each time, as without a seed
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: Option<Number>,
}

/// What to do with reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Think {
    /// Ask for reasoning and show it
    On,
    /// Ask for none
    Off,
    /// Let the model reason and show the answer only
    Hide,
}

/// `ir list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ir pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// NAME or NAME:TAG, USER/REPO with or without :QUANT and @REVISION, HOST/NAMESPACE/NAME:TAG, or a .gguf address
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// `ir show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A GGUF file, a name that `ir list` shows, or ir-tiny
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) model: String,
    /// Print a Modelfile that makes the same model
    #[arg(long, group = "part")]
    pub(crate) modelfile: bool,
    /// Print the chat template
    #[arg(long, group = "part")]
    pub(crate) template: bool,
    /// Print the parameters
    #[arg(long, group = "part")]
    pub(crate) parameters: bool,
    /// Print the system prompt
    #[arg(long, group = "part")]
    pub(crate) system: bool,
    /// Print the licence
    #[arg(long, group = "part")]
    pub(crate) license: bool,
    /// Print JSON
    #[arg(long, group = "part")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// `ir cp`.
#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// The model
    pub(crate) source: String,
    /// Its new name
    pub(crate) destination: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// `ir rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The models
    #[arg(required = true)]
    pub(crate) model: Vec<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// `ir create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The new model's name
    pub(crate) name: String,
    /// The Modelfile; `-` is standard input [default: Modelfile]
    #[arg(short = 'f', long = "file", value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "from")]
    pub(crate) modelfile: Option<PathBuf>,
    /// A model or .gguf file to make it from, instead of a Modelfile
    #[arg(long, value_name = "MODEL")]
    pub(crate) from: Option<String>,
    /// Quantise the weights to this type, as in q4_K_M
    #[arg(short, long, value_name = "TYPE")]
    pub(crate) quantize: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// `ir push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The model, by a name with its registry's host
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// `ir search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// What to look for
    #[arg(required = true)]
    pub(crate) words: Vec<String>,
    /// Results at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// `ir verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Remove files that are spoiled, so that the next pull fetches them again
    #[arg(long)]
    pub(crate) repair: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// `ir gc`.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Remove all unfinished downloads, however new
    #[arg(long)]
    pub(crate) partial: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// `ir info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// A GGUF file, a name that `ir list` shows, or ir-tiny
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) model: String,
    /// List every tensor with its shape, type, size and place
    #[arg(long)]
    pub(crate) tensors: bool,
    /// Print the recorded computation
    #[arg(long)]
    pub(crate) plan: bool,
    /// Show what context fits which device
    #[arg(long, conflicts_with_all = ["tensors", "plan"])]
    pub(crate) fit: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// `ir tokenize`.
#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    /// A GGUF file (one with a vocabulary only will do), a name that `ir list` shows, or ir-tiny
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) model: String,
    /// The text [default: standard input]
    #[arg(conflicts_with = "text_file")]
    pub(crate) text: Option<String>,
    /// Read the text from a file; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) text_file: Option<PathBuf>,
    /// Print {"ids": [...]}
    #[arg(long)]
    pub(crate) json: bool,
    /// Put no BOS or EOS around the text
    #[arg(long)]
    pub(crate) no_bos: bool,
    /// Take the text of special tokens as plain text
    #[arg(long)]
    pub(crate) no_special: bool,
    #[command(flatten)]
    pub(crate) file: FileArgs,
}

/// `ir logits`.
#[derive(Debug, Args)]
pub(crate) struct LogitsArgs {
    /// A GGUF file, a name that `ir list` shows, or ir-tiny
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) model: String,
    /// The prompt [default: standard input]
    #[arg(conflicts_with = "ids")]
    pub(crate) prompt: Option<String>,
    /// Token ids instead of a prompt
    #[arg(long, value_name = "ID,...", value_delimiter = ',', value_parser = token_id)]
    pub(crate) ids: Option<Vec<u32>>,
    /// Of a model with an encoder: what its decoder is given, while the prompt is the encoder's
    #[arg(long, value_name = "ID,...", value_delimiter = ',', value_parser = token_id)]
    pub(crate) decoder_ids: Option<Vec<u32>>,
    /// Tokens to generate greedily
    #[arg(short, value_name = "N", default_value_t = 0, value_parser = count)]
    pub(crate) n: usize,
    /// Tokens of context that room is made for, prompt and answer together [default: as many as these are]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = one_or_more)]
    pub(crate) ctx: Option<usize>,
    /// Write the logits to this file in NumPy's format
    #[arg(short, long, value_name = "FILE.npy", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
}

/// `ir embed`.
#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// A GGUF file, a name that `ir list` shows, or ir-tiny
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) model: String,
    /// The texts [default: the lines of standard input]
    #[arg(value_name = "TEXT", conflicts_with = "text_file")]
    pub(crate) texts: Vec<String>,
    /// Take the lines of a file as texts; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) text_file: Option<PathBuf>,
    /// How rows become an embedding: their mean, the first (cls) or the last [default: as the file says, else last]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) pooling: Option<PoolingChoice>,
    /// Keep this many numbers of each embedding, from its start [default: all]
    #[arg(long, value_name = "N", value_parser = one_or_more)]
    pub(crate) dimensions: Option<usize>,
    /// Leave embeddings as long as they are, instead of dividing each by its length
    #[arg(long)]
    pub(crate) no_normalize: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with_all = ["output", "similarity"])]
    pub(crate) json: bool,
    /// Write the embeddings to this file in NumPy's format, a row for each text
    #[arg(short, long, value_name = "FILE.npy", value_hint = ValueHint::FilePath, conflicts_with = "similarity")]
    pub(crate) output: Option<PathBuf>,
    /// Print the cosines of all pairs of texts instead of the embeddings
    #[arg(long)]
    pub(crate) similarity: bool,
    /// Print counts, time and rate to standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
}

/// `ir rerank`.
#[derive(Debug, Args)]
pub(crate) struct RerankArgs {
    /// A GGUF file of a reranker, or a name that `ir list` shows
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) model: String,
    /// What is asked
    pub(crate) query: String,
    /// The texts to score [default: the lines of standard input]
    #[arg(value_name = "DOC", conflicts_with = "text_file")]
    pub(crate) documents: Vec<String>,
    /// Take the lines of a file as texts; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) text_file: Option<PathBuf>,
    /// Print one JSON object, the scores in the order of the texts, instead of a list with the best first
    #[arg(long)]
    pub(crate) json: bool,
    /// Print counts, time and rate to standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
}

/// How rows become an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PoolingChoice {
    /// The mean of all rows
    Mean,
    /// The first row
    Cls,
    /// The last row
    Last,
}

impl From<PoolingChoice> for ir_engine::model::Pooling {
    fn from(choice: PoolingChoice) -> Self {
        match choice {
            PoolingChoice::Mean => Self::Mean,
            PoolingChoice::Cls => Self::Cls,
            PoolingChoice::Last => Self::Last,
        }
    }
}

/// `ir bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// A GGUF file, a name that `ir list` shows, or ir-tiny
    #[arg(value_hint = ValueHint::FilePath, required_unless_present_any = ["synthetic", "machine"])]
    pub(crate) model: Option<String>,
    /// Make random weights of this SHAPE-TYPE instead, such as 1b-q4_0
    #[arg(long, value_name = "SHAPE-TYPE", conflicts_with = "model")]
    pub(crate) synthetic: Option<String>,
    /// Save the synthetic model as a GGUF file, to be measured by other programs too, and measure nothing
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "synthetic")]
    pub(crate) write: Option<PathBuf>,
    /// Prompt lengths; 0 is none
    #[arg(short = 'p', long, value_name = "N,...", value_delimiter = ',', default_value = "512")]
    pub(crate) n_prompt: Vec<u32>,
    /// Tokens to generate; 0 is none
    #[arg(short = 'n', long, value_name = "N,...", value_delimiter = ',', default_value = "128")]
    pub(crate) n_gen: Vec<u32>,
    /// Numbers of threads [default: one per core]
    #[arg(short, long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Vec<u16>,
    /// Rows of a step at most
    #[arg(short = 'b', long, value_name = "N,...", value_delimiter = ',', default_value = "512",
        value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    pub(crate) batch: Vec<u32>,
    /// Tokens that are in the cache before the clock starts
    #[arg(short = 'd', long = "depth", value_name = "N,...", value_delimiter = ',', default_value = "0")]
    pub(crate) depth: Vec<u32>,
    /// Sequences that generate together, up to 64; rates are of all of them
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=crate::compute::MAX_OUTPUTS as i64))]
    pub(crate) parallel: Vec<u32>,
    /// Repetitions
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repetitions: u32,
    /// Print too what each kind of op takes in a step, and the bytes of weights that it reads per second
    #[arg(long)]
    pub(crate) profile: bool,
    /// Run this llama-bench in turn, fresh processes on the same file, and print medians and ratios pair by pair
    #[arg(long, value_name = "LLAMA-BENCH", value_hint = ValueHint::FilePath, conflicts_with_all = ["synthetic", "profile"])]
    pub(crate) against: Option<PathBuf>,
    /// Measure the processor instead: reads of memory, and products on operands in registers, per instruction set
    #[arg(long, conflicts_with_all = ["model", "synthetic", "against", "profile", "n_prompt", "n_gen", "batch", "depth",
        "parallel", "repetitions", "device", "gpu_forms", "activations", "kv_type"])]
    pub(crate) machine: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
}

/// `ir perplexity`.
#[derive(Debug, Args)]
pub(crate) struct PerplexityArgs {
    /// A GGUF file, a name that `ir list` shows, or ir-tiny
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) model: String,
    /// The text; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(required_unless_present = "kl_base")]
    pub(crate) text_file: Option<PathBuf>,
    /// Tokens of a window
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(8..=1 << 20))]
    pub(crate) ctx: u32,
    /// Windows to compute at most
    #[arg(long, value_name = "N", value_parser = one_or_more)]
    pub(crate) chunks: Option<usize>,
    /// Keep the model's predictions in a file, for others' --kl-base
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) save_all_logits: Option<PathBuf>,
    /// Compare with predictions that were kept, over the text that was kept with them
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["text_file", "ctx", "save_all_logits"])]
    pub(crate) kl_base: Option<PathBuf>,
    /// Print JSON at the end instead of running figures
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
}

/// `ir imatrix`.
#[derive(Debug, Args)]
pub(crate) struct ImatrixArgs {
    /// A GGUF file, a folder of safetensors, or a name that `ir list` shows
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) model: String,
    /// The text; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) text_file: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    /// Tokens of a window
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(8..=1 << 20))]
    pub(crate) ctx: u32,
    /// Windows to compute at most
    #[arg(long, value_name = "N", value_parser = one_or_more)]
    pub(crate) chunks: Option<usize>,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) file: FileArgs,
}

/// `ir quantize`.
#[derive(Debug, Args)]
pub(crate) struct QuantizeArgs {
    /// A GGUF file, a folder of safetensors, or a name that `ir list` shows
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) input: String,
    /// The file to write
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    /// The type, or mix of types, to write
    #[arg(value_name = "TYPE")]
    pub(crate) mix: String,
    /// Which columns matter: a file of `ir imatrix` or llama-imatrix
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) imatrix: Option<PathBuf>,
    /// A type for tensors whose names fit a regular expression; the first that fits counts
    #[arg(long, value_name = "PATTERN=TYPE")]
    pub(crate) tensor_type: Vec<String>,
    /// Give every matrix the same type
    #[arg(long)]
    pub(crate) pure: bool,
    /// Say what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// `ir convert`.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// A folder with config.json and safetensors; with --merge a GGUF file, too
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) folder: String,
    /// The file to write
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    /// The type, or mix of types, to write; without it each tensor keeps its own
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) mix: Option<String>,
    /// A LoRA adapter to merge into the weights, and how much of it [default: 1]; several may be given
    #[arg(long, value_name = "FILE[:SCALE]", value_hint = ValueHint::AnyPath)]
    pub(crate) merge: Vec<String>,
    /// Say what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) threads: ThreadArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// `ir split`.
#[derive(Debug, Args)]
pub(crate) struct SplitArgs {
    /// A GGUF file, or a name that `ir list` shows
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) model: String,
    /// The path of the parts without -00001-of-0000N.gguf
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) prefix: PathBuf,
    /// Tensors of a part at most [default: 128]
    #[arg(long, value_name = "N", value_parser = one_or_more)]
    pub(crate) max_tensors: Option<usize>,
    /// Bytes of a part's tensors at most, as in 500M or 2G
    #[arg(long, value_name = "SIZE", value_parser = part_size, conflicts_with = "max_tensors")]
    pub(crate) max_size: Option<u64>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Bytes from `500M` or `2G`.
fn part_size(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).unwrap_or((text, ""));
    let unit = match unit {
        "M" | "m" => 1_000_000,
        "G" | "g" => 1_000_000_000,
        _ => 0,
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|n| *n > 0);
    bytes.ok_or_else(|| "a size is a whole number from 1 and M or G, as in 500M or 2G".to_owned())
}

/// `ir merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Any part of the model
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) model: String,
    /// The file to write
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// `ir completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// A shell that completions are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// GNU bash
    Bash,
    /// The Z shell
    Zsh,
    /// fish
    Fish,
    /// PowerShell
    Powershell,
}
