//! Chat templates against what Hugging Face's `apply_chat_template` made of the same chats.

use ir_engine::text::chat::{ChatTemplate, Message, RenderInput};
use serde_json::Value as Json;

/// The chats of `ir-tiny`, prompts included: its template must give them byte for byte.
#[test]
fn ir_tiny_prompts_are_exact() {
    let data: Json = serde_json::from_str(include_str!("data/chat/ir-tiny.json")).unwrap();
    let template = ChatTemplate::new(data["template"].as_str().unwrap(), None).unwrap();
    assert!(template.supports_system() && template.supports_tools() && !template.thinks());
    let chats = data["chats"].as_array().unwrap();
    assert!(chats.len() >= 30);
    let mut with_tools = 0;
    for chat in chats {
        let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
        let tools = chat["tools"].as_array().cloned().unwrap_or_default();
        with_tools += usize::from(!tools.is_empty());
        let input =
            RenderInput { messages: &messages, tools: &tools, add_generation_prompt: true, ..RenderInput::default() };
        assert_eq!(template.render(&input).unwrap().text, chat["prompt"].as_str().unwrap());
    }
    assert!(with_tools >= 4);
}
