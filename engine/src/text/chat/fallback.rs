//! Templates for files that carry none, chosen by the turn tokens in their vocabulary. Written for this project.

/// A family's turn tokens and the template that uses them.
struct Family {
    name: &'static str,
    /// All must be in the vocabulary.
    tokens: &'static [&'static str],
    template: &'static str,
}

/// In order of preference: the more telling tokens first.
const FAMILIES: [Family; 9] = [
    Family {
        name: "phi-4",
        tokens: &["<|im_start|>", "<|im_sep|>", "<|im_end|>"],
        template: "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content or '' }}<|im_end|>{% endfor %}\
            {% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}",
    },
    Family {
        name: "chatml",
        tokens: &["<|im_start|>", "<|im_end|>"],
        template: "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ (m.content or '') ~ '<|im_end|>\\n' }}\
            {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    },
    Family {
        name: "llama-3",
        tokens: &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        template: "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n' \
            ~ (m.content or '')|trim ~ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}\
            {{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    },
    Family {
        name: "gemma",
        tokens: &["<start_of_turn>", "<end_of_turn>"],
        template: "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}\
            {% if m.role == 'system' %}{% set ns.system = (m.content or '')|trim ~ '\\n\\n' %}{% else %}\
            {{ '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\\n' ~ ns.system \
            ~ (m.content or '')|trim ~ '<end_of_turn>\\n' }}{% set ns.system = '' %}{% endif %}{% endfor %}\
            {% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
    },
    Family {
        name: "deepseek",
        tokens: &["<｜User｜>", "<｜Assistant｜>"],
        template: "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' ~ m.content }}\
            {% elif m.role == 'assistant' %}{{ '<｜Assistant｜>' ~ (m.content or '').split('</think>')[-1] ~ eos_token }}\
            {% else %}{{ m.content }}{% endif %}{% endfor %}\
            {% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}",
    },
    Family {
        name: "gpt-oss",
        tokens: &["<|start|>", "<|message|>", "<|channel|>", "<|end|>"],
        template: "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}\
            <|message|>{{ m.content or '' }}<|end|>{% endfor %}\
            {% if add_generation_prompt %}<|start|>assistant{% endif %}",
    },
    Family {
        name: "granite",
        tokens: &["<|start_of_role|>", "<|end_of_role|>"],
        template: "{% for m in messages %}{{ '<|start_of_role|>' ~ m.role ~ '<|end_of_role|>' ~ (m.content or '') \
            ~ eos_token ~ '\\n' }}{% endfor %}\
            {% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}",
    },
    Family {
        name: "phi-3",
        tokens: &["<|user|>", "<|assistant|>", "<|end|>"],
        template: "{% for m in messages %}{{ '<|' ~ m.role ~ '|>\\n' ~ (m.content or '') ~ '<|end|>\\n' }}{% endfor %}\
            {% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
    },
    Family {
        name: "mistral",
        tokens: &["[INST]", "[/INST]"],
        template: "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}\
            {% if m.role == 'system' %}{% set ns.system = m.content ~ '\\n\\n' %}{% elif m.role == 'user' %}\
            {{ '[INST] ' ~ ns.system ~ m.content ~ '[/INST]' }}{% set ns.system = '' %}\
            {% else %}{{ ' ' ~ (m.content or '')|trim ~ eos_token }}{% endif %}{% endfor %}",
    },
];

/// The name and template of the first family whose turn tokens the vocabulary has.
pub(super) fn find(has_token: &dyn Fn(&str) -> bool) -> Option<(&'static str, &'static str)> {
    let family = FAMILIES.iter().find(|f| f.tokens.iter().all(|t| has_token(t)))?;
    Some((family.name, family.template))
}

#[cfg(test)]
mod tests {
    use super::super::{ChatTemplate, Message, RenderInput, Source};
    use super::*;
    use crate::meta::Meta;

    #[test]
    fn every_family_is_found_by_its_tokens_and_renders() {
        let messages = [
            Message::new("system", "SYS"),
            Message::new("user", "Q1"),
            Message::new("assistant", "A1"),
            Message::new("user", "Q2"),
        ];
        let want = [
            (
                "phi-4",
                "<|im_start|>system<|im_sep|>SYS<|im_end|><|im_start|>user<|im_sep|>Q1<|im_end|><|im_start|>assistant<|im_sep|>A1<|im_end|><|im_start|>user<|im_sep|>Q2<|im_end|><|im_start|>assistant<|im_sep|>",
            ),
            (
                "chatml",
                "<|im_start|>system\nSYS<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n",
            ),
            (
                "llama-3",
                "[B]<|start_header_id|>system<|end_header_id|>\n\nSYS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ1<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            ),
            (
                "gemma",
                "[B]<start_of_turn>user\nSYS\n\nQ1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\n",
            ),
            ("deepseek", "[B]SYS<｜User｜>Q1<｜Assistant｜>A1[E]<｜User｜>Q2<｜Assistant｜>"),
            (
                "gpt-oss",
                "<|start|>system<|message|>SYS<|end|><|start|>user<|message|>Q1<|end|><|start|>assistant<|channel|>final<|message|>A1<|end|><|start|>user<|message|>Q2<|end|><|start|>assistant",
            ),
            (
                "granite",
                "<|start_of_role|>system<|end_of_role|>SYS[E]\n<|start_of_role|>user<|end_of_role|>Q1[E]\n<|start_of_role|>assistant<|end_of_role|>A1[E]\n<|start_of_role|>user<|end_of_role|>Q2[E]\n<|start_of_role|>assistant<|end_of_role|>",
            ),
            (
                "phi-3",
                "<|system|>\nSYS<|end|>\n<|user|>\nQ1<|end|>\n<|assistant|>\nA1<|end|>\n<|user|>\nQ2<|end|>\n<|assistant|>\n",
            ),
            ("mistral", "[B][INST] SYS\n\nQ1[/INST] A1[E][INST] Q2[/INST]"),
        ];
        assert_eq!(want.len(), FAMILIES.len());
        for (family, (name, text)) in FAMILIES.iter().zip(want) {
            let template = ChatTemplate::from_meta(&Meta::default(), &|t| family.tokens.contains(&t)).unwrap().unwrap();
            assert_eq!(template.source(), Source::Family(name));
            let input = RenderInput {
                messages: &messages,
                add_generation_prompt: true,
                bos: "[B]",
                eos: "[E]",
                ..RenderInput::default()
            };
            assert_eq!(template.render(&input).unwrap().text, text, "{name}");
        }
        assert!(ChatTemplate::from_meta(&Meta::default(), &|t| t == "<|im_start|>").unwrap().is_none());
    }
}
