//! The clients that `ir launch` knows: what each is told about a server, by its environment, its flags or a file of its own.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

/// What a client is told.
#[derive(Debug, Clone)]
pub(super) struct Told<'a> {
    /// The server's address, as in `http://127.0.0.1:11434`.
    pub(super) url: &'a str,
    /// The key that the server wants; clients that want one themselves get any.
    pub(super) key: &'a str,
    /// The model's name.
    pub(super) model: &'a str,
    /// Tokens of its context, where they are known.
    pub(super) context: Option<u64>,
}

/// How a client is started.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Start {
    /// Variables of its environment.
    pub(super) env: Vec<(&'static str, String)>,
    /// Flags in front of the user's own.
    pub(super) flags: Vec<String>,
    /// A file that it reads.
    pub(super) file: Option<File>,
}

/// A file that a client reads.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// It is the client's own, and the user's: never written over.
    pub(super) shared: bool,
}

/// A client.
pub(super) struct Client {
    /// The name that `ir launch` takes.
    pub(super) name: &'static str,
    /// The program.
    pub(super) program: &'static str,
    /// How it is installed.
    pub(super) install: &'static str,
    /// Tokens that its own directions and tools take, with room to work in.
    pub(super) needs: u64,
    /// What it is told; the folders are the one of `ir`'s own files for clients, and the user's of configurations.
    pub(super) start: fn(&Told<'_>, &Folders) -> Start,
}

/// Where files go.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    /// Files that `ir` writes for clients and nobody else reads.
    pub(super) own: PathBuf,
    /// The user's configurations.
    pub(super) config: PathBuf,
}

/// All clients, by name.
pub(super) const CLIENTS: [Client; 10] = [
    Client { name: "aider", program: "aider", install: "pip install aider-chat", needs: 8_192, start: aider },
    Client {
        name: "claude",
        program: "claude",
        install: "npm install -g @anthropic-ai/claude-code",
        needs: 32_768,
        start: claude,
    },
    Client { name: "cline", program: "cline", install: "npm install -g cline", needs: 32_768, start: cline },
    Client { name: "codex", program: "codex", install: "npm install -g @openai/codex", needs: 16_384, start: codex },
    Client {
        name: "continue",
        program: "cn",
        install: "npm install -g @continuedev/cli",
        needs: 8_192,
        start: continue_,
    },
    Client {
        name: "copilot",
        program: "copilot",
        install: "npm install -g @github/copilot",
        needs: 32_768,
        start: copilot,
    },
    Client { name: "goose", program: "goose", install: "its page of releases", needs: 16_384, start: goose },
    Client {
        name: "opencode",
        program: "opencode",
        install: "npm install -g opencode-ai",
        needs: 16_384,
        start: opencode,
    },
    Client {
        name: "qwen",
        program: "qwen",
        install: "npm install -g @qwen-code/qwen-code",
        needs: 16_384,
        start: qwen,
    },
    Client { name: "zed", program: "zed", install: "its page of downloads", needs: 8_192, start: zed },
];

fn env<const N: usize>(pairs: [(&'static str, String); N]) -> Vec<(&'static str, String)> {
    pairs.into()
}

fn flags<const N: usize>(flags: [&str; N]) -> Vec<String> {
    flags.map(str::to_owned).into()
}

fn aider(told: &Told<'_>, _: &Folders) -> Start {
    let env = env([("OPENAI_API_BASE", format!("{}/v1", told.url)), ("OPENAI_API_KEY", told.key.to_owned())]);
    Start { env, flags: flags(["--model", &format!("openai/{}", told.model)]), file: None }
}

fn claude(told: &Told<'_>, _: &Folders) -> Start {
    let model = || told.model.to_owned();
    let mut env = env([
        ("ANTHROPIC_BASE_URL", told.url.to_owned()),
        ("ANTHROPIC_AUTH_TOKEN", told.key.to_owned()),
        // A key of the user's would go before it.
        ("ANTHROPIC_API_KEY", String::new()),
        ("ANTHROPIC_MODEL", model()),
        // It asks smaller models for titles and the like.
        ("ANTHROPIC_DEFAULT_OPUS_MODEL", model()),
        ("ANTHROPIC_DEFAULT_SONNET_MODEL", model()),
        ("ANTHROPIC_DEFAULT_HAIKU_MODEL", model()),
        ("ANTHROPIC_DEFAULT_FABLE_MODEL", model()),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".into()),
    ]);
    // It takes a model that it does not know to have room for a million, and would never shorten its history.
    env.extend(told.context.map(|n| ("CLAUDE_CODE_MAX_CONTEXT_TOKENS", n.to_string())));
    Start { env, ..Start::default() }
}

fn cline(told: &Told<'_>, folders: &Folders) -> Start {
    // Its settings are its own; a folder beside them leaves the user's as they are.
    let folder = folders.own.join("cline");
    let provider = "openai-compatible";
    let settings =
        json!({"provider": provider, "apiKey": told.key, "model": told.model, "baseUrl": format!("{}/v1", told.url)});
    // Without a date, or with a provider that it does not know, it throws the file away and asks its own host.
    let text = pretty(&json!({
        "version": 1,
        "lastUsedProvider": provider,
        "providers": {provider: {"settings": settings, "updatedAt": "2026-01-01T00:00:00.000Z", "tokenSource": "manual"}},
    }));
    let file = Some(File { path: folder.join("data/settings/providers.json"), text, shared: false });
    Start { env: env([("CLINE_DIR", folder.display().to_string())]), flags: Vec::new(), file }
}

fn codex(told: &Told<'_>, _: &Folders) -> Start {
    let mut given = vec![
        r#"model_provider="ir""#.to_owned(),
        r#"model_providers.ir.name="ir""#.to_owned(),
        format!("model_providers.ir.base_url={}", text(&format!("{}/v1", told.url))),
        r#"model_providers.ir.wire_api="responses""#.to_owned(),
        r#"model_providers.ir.env_key="IR_API_KEY""#.to_owned(),
    ];
    given.extend(told.context.map(|n| format!("model_context_window={n}")));
    let mut flags: Vec<String> = given.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect();
    flags.extend(["--model".to_owned(), told.model.to_owned()]);
    Start { env: env([("IR_API_KEY", told.key.to_owned())]), flags, file: None }
}

fn continue_(told: &Told<'_>, folders: &Folders) -> Start {
    let (model, key, base) = (text(told.model), text(told.key), text(&format!("{}/v1", told.url)));
    let room =
        told.context.map(|n| format!("    defaultCompletionOptions:\n      contextLength: {n}\n")).unwrap_or_default();
    let yaml = format!(
        "name: ir\nversion: 1.0.0\nschema: v1\nmodels:\n  - name: {model}\n    provider: openai\n    model: {model}\n    \
         apiBase: {base}\n    apiKey: {key}\n    roles: [chat, edit, apply]\n    capabilities: [tool_use]\n{room}"
    );
    let path = folders.own.join("continue.yaml");
    let flags = flags(["--config", &path.display().to_string()]);
    Start { env: Vec::new(), flags, file: Some(File { path, text: yaml, shared: false }) }
}

fn copilot(told: &Told<'_>, _: &Folders) -> Start {
    let mut env = env([
        ("COPILOT_PROVIDER_BASE_URL", format!("{}/v1", told.url)),
        ("COPILOT_PROVIDER_API_KEY", told.key.to_owned()),
        ("COPILOT_MODEL", told.model.to_owned()),
        // Its own account and hosts are left alone.
        ("COPILOT_OFFLINE", "true".into()),
    ]);
    env.extend(told.context.map(|n| ("COPILOT_PROVIDER_MAX_PROMPT_TOKENS", n.to_string())));
    Start { env, ..Start::default() }
}

fn goose(told: &Told<'_>, _: &Folders) -> Start {
    let mut env = env([
        ("GOOSE_PROVIDER", "openai".into()),
        ("GOOSE_MODEL", told.model.to_owned()),
        ("OPENAI_HOST", told.url.to_owned()),
        ("OPENAI_API_KEY", told.key.to_owned()),
    ]);
    env.extend(told.context.map(|n| ("GOOSE_CONTEXT_LIMIT", n.to_string())));
    Start { env, ..Start::default() }
}

fn opencode(told: &Told<'_>, _: &Folders) -> Start {
    let mut model = json!({"name": told.model});
    if let Some(n) = told.context {
        model["limit"] = json!({"context": n, "output": (n / 4).max(1)});
    }
    let config = json!({
        "$schema": "https://opencode.ai/config.json",
        "model": format!("ir/{}", told.model),
        "provider": {"ir": {
            "npm": "@ai-sdk/openai-compatible", "name": "ir",
            "options": {"baseURL": format!("{}/v1", told.url), "apiKey": told.key},
            "models": {told.model: model},
        }},
    });
    Start { env: env([("OPENCODE_CONFIG_CONTENT", config.to_string())]), ..Start::default() }
}

fn qwen(told: &Told<'_>, _: &Folders) -> Start {
    let env = env([
        ("OPENAI_BASE_URL", format!("{}/v1", told.url)),
        ("OPENAI_API_KEY", told.key.to_owned()),
        ("OPENAI_MODEL", told.model.to_owned()),
    ]);
    Start { env, flags: flags(["--auth-type", "openai"]), file: None }
}

fn zed(told: &Told<'_>, folders: &Folders) -> Start {
    let mut model = json!({"name": told.model, "display_name": told.model});
    if let Some(n) = told.context {
        model["max_tokens"] = n.into();
    }
    let text = pretty(&json!({
        "language_models": {"openai_compatible": {"ir": {"api_url": format!("{}/v1", told.url), "available_models": [model]}}},
        "agent": {"default_model": {"provider": "ir", "model": told.model}},
    }));
    // It takes the key of a provider from a variable with the provider's name.
    let file = Some(File { path: folders.config.join("zed/settings.json"), text, shared: true });
    Start { env: env([("IR_API_KEY", told.key.to_owned())]), flags: Vec::new(), file }
}

fn pretty(value: &Json) -> String {
    format!("{value:#}\n")
}

/// A text in quotes, as TOML and YAML read it too.
fn text(text: &str) -> String {
    Json::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_is_told_the_address_and_the_model() {
        let folders = Folders { own: "/own".into(), config: "/config".into() };
        let told = Told { url: "http://127.0.0.1:7", key: "secret", model: "fox\"8b", context: Some(40_000) };
        for client in &CLIENTS {
            let start = (client.start)(&told, &folders);
            let file = start.file.as_ref().map(|f| f.text.clone()).unwrap_or_default();
            let all = format!("{:?} {:?} {file}", start.env, start.flags);
            for part in ["127.0.0.1:7", "secret", "fox"] {
                assert!(all.contains(part), "{} is not told {part}: {all}", client.name);
            }
            assert!(client.needs >= 4096 && !client.install.is_empty(), "{}", client.name);
        }
        let names: Vec<&str> = CLIENTS.iter().map(|c| c.name).collect();
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn files_and_settings_are_of_their_form() {
        let folders = Folders { own: "/own".into(), config: "/config".into() };
        let told = Told { url: "http://127.0.0.1:7", key: "k", model: "a\"b", context: Some(8) };
        let json_of = |start: Start| {
            let file = start.file.map(|f| f.text).or(start.env.first().map(|(_, v)| v.clone())).unwrap_or_default();
            serde_json::from_str::<Json>(&file).unwrap_or_default()
        };
        assert_eq!(json_of(zed(&told, &folders))["agent"]["default_model"]["model"], "a\"b");
        let cline = json_of(cline(&told, &folders));
        let provider = &cline["providers"][cline["lastUsedProvider"].as_str().unwrap_or_default()];
        assert_eq!(
            (&provider["settings"]["baseUrl"], provider["updatedAt"].is_string()),
            (&"http://127.0.0.1:7/v1".into(), true)
        );
        assert_eq!(json_of(opencode(&told, &folders))["provider"]["ir"]["models"]["a\"b"]["limit"]["context"], 8);
        for setting in codex(&told, &folders).flags.chunks(2).filter(|pair| pair[0] == "-c") {
            assert!(setting[1].parse::<toml::Table>().is_ok(), "{setting:?}");
        }
    }
}
