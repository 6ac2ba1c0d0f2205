//! Recorded plans as text, one per family: a change of what is computed shows here, without a device.

#[test]
fn plans_of_the_families() {
    for name in ["llama3", "llama-tied", "qwen2", "qwen3"] {
        let golden = crate::common::Golden::load(name);
        insta::assert_snapshot!(name, golden.model.plan().to_string());
    }
}
