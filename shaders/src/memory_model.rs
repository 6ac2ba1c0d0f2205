//! A pass over SPIR-V: what naga 30 leaves out where a module declares the Vulkan memory model, as cooperative matrices demand
//! (gfx-rs/wgpu issue 8805). Words in, words out; no driver, no validation of what has nothing to do with memory.
//!
//! Under that model an access is private to its invocation unless it says `NonPrivatePointer`, and may then be moved over
//! barriers; a barrier orders accesses but hands nothing on unless it says `MakeAvailable` and `MakeVisible`. So
//! - loads and stores, also cooperative ones, through pointers to workgroup memory and storage buffers become non-private;
//! - barriers that release make available, and those that acquire make visible, the memory that they name.
//!
//! Besides, arrays that only workgroup memory has lose their strides, which Vulkan's rules allow none of there.
//!
//! With barriers that do so, single accesses need no `MakePointerAvailable` and `MakePointerVisible`. Atomics are never
//! private, and naga's are relaxed, so they stay. Variables decorated `Coherent` or `Volatile`, which this model forbids, and
//! copies of memory, which naga does not write, are refused.

use std::collections::{BTreeMap, BTreeSet};

use crate::Error;

const MAGIC: u32 = 0x0723_0203;
/// Words in front of the instructions; the fourth is the bound of all ids.
const HEADER: usize = 5;
const BOUND: usize = 3;

const VULKAN_MODEL: u32 = 3;
const WORKGROUP: u32 = 4;
const STORAGE_BUFFER: u32 = 12;
/// Storage classes whose types say where everything lies: Uniform, PushConstant, StorageBuffer.
const LAID_OUT: [u32; 3] = [2, 9, STORAGE_BUFFER];
const ARRAY_STRIDE: u32 = 6;
const NON_PRIVATE: u32 = 0x20;
const COHERENT: u32 = 23;
const VOLATILE: u32 = 21;

// Bits of memory semantics.
const ACQUIRE: u32 = 0x2;
const RELEASE: u32 = 0x4;
const ACQUIRE_RELEASE: u32 = 0x8;
/// Uniform (which means storage buffers), subgroup, workgroup, image and output memory.
const MEMORIES: u32 = 0x40 | 0x80 | 0x100 | 0x800 | 0x1000;
const MAKE_AVAILABLE: u32 = 0x2000;
const MAKE_VISIBLE: u32 = 0x4000;

/// Instructions by their numbers in the specification.
mod op {
    pub(super) const MEMORY_MODEL: u32 = 14;
    pub(super) const TYPE_ARRAY: u32 = 28;
    pub(super) const TYPE_RUNTIME_ARRAY: u32 = 29;
    pub(super) const TYPE_STRUCT: u32 = 30;
    pub(super) const TYPE_POINTER: u32 = 32;
    pub(super) const CONSTANT: u32 = 43;
    pub(super) const LOAD: u32 = 61;
    pub(super) const STORE: u32 = 62;
    pub(super) const COPY_MEMORY: u32 = 63;
    pub(super) const COPY_MEMORY_SIZED: u32 = 64;
    pub(super) const DECORATE: u32 = 71;
    pub(super) const MEMBER_DECORATE: u32 = 72;
    pub(super) const CONTROL_BARRIER: u32 = 224;
    pub(super) const MEMORY_BARRIER: u32 = 225;
    pub(super) const COOPERATIVE_LOAD: u32 = 4457;
    pub(super) const COOPERATIVE_STORE: u32 = 4458;
    /// Those that may give a pointer: undefined, function parameter and call, variable, load, access chains, copy, select, phi.
    pub(super) const POINTERS: [u32; 12] = [1, 55, 57, 59, 61, 65, 66, 67, 70, 83, 169, 245];
}

/// A module that declares the Vulkan memory model, with the memory operands and semantics that the model demands.
///
/// # Errors
/// Where the words are no such module, or it has an access that is not foreseen.
pub fn with_memory_semantics(words: &[u32]) -> Result<Vec<u32>, Error> {
    if words.len() < HEADER || words[0] != MAGIC {
        return Err(Error("these words are no SPIR-V module".into()));
    }
    let found = Found::of(words)?;
    let mut out = Vec::with_capacity(words.len() + words.len() / 8);
    out.extend(&words[..HEADER]);
    let mut bound = words[BOUND];
    let mut renamed = BTreeMap::new();
    for id in &found.semantics {
        let (_, value) = found.constant(*id)?;
        if completed(value) != value {
            renamed.insert(*id, bound);
            bound = bound.checked_add(1).ok_or_else(|| Error("the module's ids are used up".into()))?;
        }
    }
    out[BOUND] = bound;
    for instruction in Instructions(&words[HEADER..]) {
        let instruction = instruction?;
        if let [_, array, ARRAY_STRIDE, ..] = instruction.words
            && instruction.opcode() == op::DECORATE
            && found.of_workgroups.contains(array)
        {
            continue;
        }
        let end = out.len();
        out.extend(instruction.words);
        match instruction.opcode() {
            op::CONSTANT => {
                if let Some(id) = renamed.get(&instruction.word(2)?) {
                    let (of_type, value) = found.constant(instruction.word(2)?)?;
                    out.extend([instruction.words[0], of_type, *id, completed(value)]);
                }
            }
            opcode @ (op::CONTROL_BARRIER | op::MEMORY_BARRIER) => {
                let at = semantics_at(opcode);
                if let Some(id) = renamed.get(&instruction.word(at)?) {
                    out[end + at] = *id;
                }
            }
            opcode => {
                if let Some((pointer, operands)) = access(opcode)
                    && found.pointers.contains(&instruction.word(pointer)?)
                {
                    add_operand(&mut out, end, operands)?;
                }
            }
        }
    }
    Ok(out)
}

/// Where an instruction that accesses memory has its pointer, and where its memory operands begin if it has any.
fn access(opcode: u32) -> Option<(usize, usize)> {
    match opcode {
        op::LOAD => Some((3, 4)),
        op::STORE => Some((1, 3)),
        op::COOPERATIVE_LOAD => Some((3, 6)),
        op::COOPERATIVE_STORE => Some((1, 5)),
        _ => None,
    }
}

/// Where a barrier has its semantics.
fn semantics_at(opcode: u32) -> usize {
    if opcode == op::CONTROL_BARRIER { 3 } else { 2 }
}

/// The semantics with what hands memory on.
fn completed(semantics: u32) -> u32 {
    let both = semantics & ACQUIRE_RELEASE;
    let mut more = 0;
    if semantics & MEMORIES != 0 {
        if semantics & RELEASE != 0 || both != 0 {
            more |= MAKE_AVAILABLE;
        }
        if semantics & ACQUIRE != 0 || both != 0 {
            more |= MAKE_VISIBLE;
        }
    }
    semantics | more
}

/// Makes the access non-private that begins at `start` and ends the words, with memory operands from its word `at` on.
fn add_operand(out: &mut Vec<u32>, start: usize, at: usize) -> Result<(), Error> {
    let n = out.len() - start;
    if n > at {
        out[start + at] |= NON_PRIVATE;
        return Ok(());
    }
    if n < at || n >= 0xffff {
        // A cooperative access without a stride has no place for them.
        return Err(Error(format!("an access of {n} words takes no memory operands")));
    }
    out.push(NON_PRIVATE);
    out[start] += 1 << 16;
    Ok(())
}

/// What must be known of a module before it is written anew.
#[derive(Default)]
struct Found {
    /// Ids of pointers to shared memory.
    pointers: BTreeSet<u32>,
    /// Types that only workgroup memory has.
    of_workgroups: BTreeSet<u32>,
    /// Types and values of constants of one word.
    constants: BTreeMap<u32, (u32, u32)>,
    /// Ids that barriers have as semantics.
    semantics: BTreeSet<u32>,
}

impl Found {
    fn of(words: &[u32]) -> Result<Found, Error> {
        let mut found = Found::default();
        let (mut shared, mut laid_out) = (BTreeSet::new(), BTreeSet::new());
        let mut vulkan = false;
        for instruction in Instructions(&words[HEADER..]) {
            let instruction = instruction?;
            let word = |i: usize| instruction.word(i);
            match instruction.opcode() {
                op::MEMORY_MODEL => vulkan = word(2)? == VULKAN_MODEL,
                op::TYPE_ARRAY | op::TYPE_RUNTIME_ARRAY => _ = laid_out.insert(word(2)?),
                op::TYPE_STRUCT => laid_out.extend(instruction.words.iter().skip(2)),
                op::TYPE_POINTER => {
                    let (id, class, pointee) = (word(1)?, word(2)?, word(3)?);
                    if [WORKGROUP, STORAGE_BUFFER].contains(&class) {
                        shared.insert(id);
                    }
                    if class == WORKGROUP {
                        found.of_workgroups.insert(pointee);
                    }
                    if LAID_OUT.contains(&class) {
                        laid_out.insert(pointee);
                    }
                }
                op::CONSTANT if instruction.words.len() == 4 => {
                    found.constants.insert(word(2)?, (word(1)?, word(3)?));
                }
                opcode @ (op::CONTROL_BARRIER | op::MEMORY_BARRIER) => {
                    found.semantics.insert(word(semantics_at(opcode))?);
                }
                opcode @ (op::DECORATE | op::MEMBER_DECORATE) => {
                    let decoration = word(if opcode == op::DECORATE { 2 } else { 3 })?;
                    if [COHERENT, VOLATILE].contains(&decoration) {
                        let why = "a variable is coherent or volatile, which the Vulkan memory model forbids";
                        return Err(Error(why.into()));
                    }
                }
                op::COPY_MEMORY | op::COPY_MEMORY_SIZED => {
                    return Err(Error("copies of memory are not foreseen".into()));
                }
                opcode if op::POINTERS.contains(&opcode) && shared.contains(&word(1)?) => {
                    found.pointers.insert(word(2)?);
                }
                _ => {}
            }
        }
        found.of_workgroups.retain(|id| !laid_out.contains(id));
        if vulkan { Ok(found) } else { Err(Error("the module does not declare the Vulkan memory model".into())) }
    }

    fn constant(&self, id: u32) -> Result<(u32, u32), Error> {
        self.constants
            .get(&id)
            .copied()
            .ok_or_else(|| Error(format!("the semantics %{id} of a barrier are no constant")))
    }
}

struct Instruction<'a> {
    words: &'a [u32],
}

impl Instruction<'_> {
    fn opcode(&self) -> u32 {
        self.words[0] & 0xffff
    }

    fn word(&self, at: usize) -> Result<u32, Error> {
        self.words.get(at).copied().ok_or_else(|| Error(format!("an instruction {} is too short", self.opcode())))
    }
}

/// The instructions of words behind the header, none of which is empty; an error where the last one is cut.
struct Instructions<'a>(&'a [u32]);

impl<'a> Iterator for Instructions<'a> {
    type Item = Result<Instruction<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let n = (*self.0.first()? >> 16) as usize;
        let Some((words, rest)) = self.0.split_at_checked(n).filter(|_| n > 0) else {
            let left = std::mem::take(&mut self.0).len();
            return Some(Err(Error(format!("an instruction has {n} words, and {left} are left"))));
        };
        self.0 = rest;
        Some(Ok(Instruction { words }))
    }
}

#[cfg(test)]
mod tests;
