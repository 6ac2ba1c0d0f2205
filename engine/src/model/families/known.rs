//! Architectures that are known and not supported yet, and what each needs beyond a plain decoder (RMS norms before
//! attention and a gated feed-forward part, rotated heads, biases, norms on heads). Facts as llama.cpp's graphs have them.

/// What a known architecture needs, as the end of a sentence.
pub(super) fn needs(arch: &str) -> Option<&'static str> {
    NEEDS.iter().find(|(name, _)| *name == arch).map(|(_, needs)| *needs)
}

const NEEDS: &[(&str, &str)] = &[
    ("arwkv7", "recurrent layers (RWKV 7)"),
    ("chameleon", "layer norms on heads, norms behind attention and feed-forward"),
    ("deepseek4", "compressed keys, hyper-connections, a mixture of experts"),
    ("dflash", "a target model, since it drafts tokens for one"),
    ("eagle3", "a target model, since it drafts tokens for one"),
    ("gemma4-assistant", "a target model, since it drafts tokens for one"),
    ("gptj", "layer norms, parallel residuals, GELU without gate"),
    ("graniteswitch", "adapters that tokens choose, scales on embeddings, residuals and logits"),
    ("qwen4exp", "recurrent layers, hyper-connections, attention to chosen blocks, a mixture of experts"),
    ("rwkv6", "recurrent layers (RWKV 6)"),
    ("rwkv6qwen2", "recurrent layers (RWKV 6)"),
    ("rwkv7", "recurrent layers (RWKV 7)"),
    ("wavtokenizer-dec", "an audio decoder, since it makes no text"),
];
