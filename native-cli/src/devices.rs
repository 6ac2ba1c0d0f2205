//! `ir devices`: the GPUs of this machine, and what each can do.

use ir_engine::gpu::{self, AdapterDescription};
use serde_json::{Value as Json, json};

use crate::args::DevicesArgs;
use crate::compute::ready;
use crate::failure::Result;
use crate::info::human_bytes;
use crate::term::Out;

/// Prints a line or a JSON object per adapter.
pub(crate) fn devices(args: &DevicesArgs) -> Result {
    let all = ready(gpu::adapters());
    let mut out = Out::new();
    if args.json {
        let list: Vec<Json> = all.iter().enumerate().map(|(i, a)| as_json(i, a)).collect();
        return out.json(&list);
    }
    if all.is_empty() {
        return out.line("No GPU was found: --device cpu works everywhere.");
    }
    for (i, a) in all.iter().enumerate() {
        let (low, high) = a.subgroup_sizes;
        let subgroups = if low == high { low.to_string() } else { format!("{low} to {high}") };
        out.line(format!("gpu:{i}  {} ({}, {})", a.name, a.kind, a.backend))?;
        out.line(format!("       driver     {}", a.driver))?;
        out.line(format!("       kernels    {}", a.forms))?;
        if let Some(memory) = a.memory {
            let free = a.free_memory.map_or(String::new(), |free| format!(", {} free", human_bytes(free)));
            out.line(format!("       memory     {}{free}", human_bytes(memory)))?;
        }
        out.line(format!("       buffers    {}, bound {}", human_bytes(a.max_buffer), human_bytes(a.max_binding)))?;
        out.line(format!(
            "       workgroup  {} of memory, subgroups of {subgroups}",
            human_bytes(a.workgroup_memory.into())
        ))?;
    }
    Ok(())
}

fn as_json(index: usize, a: &AdapterDescription) -> Json {
    json!({
        "device": format!("gpu:{index}"),
        "name": a.name,
        "kind": a.kind,
        "backend": a.backend,
        "driver": a.driver,
        "kernels": a.forms.to_string(),
        "memory": a.memory,
        "free_memory": a.free_memory,
        "max_buffer": a.max_buffer,
        "max_binding": a.max_binding,
        "workgroup_memory": a.workgroup_memory,
        "subgroup_sizes": [a.subgroup_sizes.0, a.subgroup_sizes.1],
    })
}
