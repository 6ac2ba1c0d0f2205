//! A plan as text, for people and for snapshot tests.

use std::fmt::{Display, Formatter, Result};

use super::{Op, Plan, Rows, Slot, View, WeightId};

impl Display for Rows {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Rows::Tokens => "Tokens",
            Rows::Outputs => "Outputs",
            Rows::Pools => "Pools",
        })
    }
}

struct Show<'a, T>(&'a Plan, T);

impl Display for Show<'_, Slot> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let info = self.0.slot(self.1);
        write!(f, "%{}@{}[{}, {}]", self.1.0, info.buffer, info.rows, info.cols)
    }
}

impl Display for Show<'_, View> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let View { slot, start, cols } = self.1;
        if start == 0 && cols == self.0.slot(slot).cols {
            return write!(f, "%{}", slot.0);
        }
        write!(f, "%{}[{start}..{}]", slot.0, start + cols)
    }
}

impl Display for Show<'_, WeightId> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let weight = self.0.weight(self.1);
        write!(f, "{}", weight.name)?;
        if weight.cols > 1 {
            write!(f, "[{} x {}", weight.rows(), weight.cols)?;
            let mut last = None;
            for segment in &weight.segments {
                if last != Some(segment.dtype) {
                    write!(f, " {}", segment.dtype)?;
                    last = Some(segment.dtype);
                }
            }
            write!(f, "]")?;
        }
        Ok(())
    }
}

impl Plan {
    fn show_op(&self, op: &Op, f: &mut Formatter<'_>) -> Result {
        let (s, v, w) = (|x: Slot| format!("%{}", x.0), |x| Show(self, x), |x| Show(self, x));
        if let (Some(out), false) = (op.writes(), op.is_in_place()) {
            write!(f, "{} = ", Show(self, out))?;
        }
        write!(f, "{} ", op.kind().name())?;
        match *op {
            Op::Embed { table, .. } => write!(f, "{}", w(table)),
            Op::Norm { x, weight, norm, eps, group, .. } => {
                write!(f, "{} {} {norm:?} eps={eps:e} group={group}", v(x), w(weight))
            }
            Op::Linear { x, weight, bias, .. } => {
                write!(f, "{} {}", s(x), w(weight))?;
                bias.map_or(Ok(()), |bias| write!(f, " + {}", w(bias)))
            }
            Op::Rope { x, head_dim, rope } => write!(f, "{} head_dim={head_dim} table={rope}", v(x)),
            Op::KvWrite { k, v: values, layer } => write!(f, "{} {} layer={layer}", v(k), v(values)),
            Op::Attend { q, layer, n_heads, scale, window, .. } => {
                write!(f, "{} layer={layer} heads={n_heads}/{} scale={scale:.6}", v(q), self.kv[layer].n_kv_heads)?;
                window.map_or(Ok(()), |window| write!(f, " window={window}"))
            }
            Op::Glu { x, act, .. } => write!(f, "{} {act:?}", s(x)),
            Op::Add { x, y } => write!(f, "{} {}", s(x), s(y)),
            Op::TakeRows { x, .. } | Op::Pool { x, .. } => write!(f, "{}", s(x)),
        }
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "plan: {} ops, {} buffers, {} weights", self.ops.len(), self.buffers.len(), self.weights.len())?;
        for (i, buffer) in self.buffers.iter().enumerate() {
            writeln!(f, "  buffer @{i} [{}, {}]", buffer.rows, buffer.cols)?;
        }
        for (i, rope) in self.ropes.iter().enumerate() {
            let n = rope.inv_freq.len();
            let last = rope.inv_freq.last().copied().unwrap_or_default();
            writeln!(
                f,
                "  rope table {i}: {:?}, {n} pairs, slowest {last:e}, magnitude {}",
                rope.style, rope.magnitude
            )?;
        }
        for (i, entry) in self.ops.iter().enumerate() {
            if i == 0 || self.ops[i - 1].scope != entry.scope {
                writeln!(f, "{}", entry.scope)?;
            }
            let first = i == 0 || self.ops[i - 1].group != entry.group;
            let last = self.ops.get(i + 1).is_none_or(|next| next.group != entry.group);
            let mark = match (first, last) {
                (true, true) => ' ',
                (true, false) => '┌',
                (false, false) => '│',
                (false, true) => '└',
            };
            write!(f, "  {mark} ")?;
            self.show_op(&entry.op, f)?;
            match entry.when {
                Rows::Tokens => writeln!(f)?,
                rows => writeln!(f, " (with {rows})")?,
            }
        }
        write!(f, "logits %{} [Outputs, {}]", self.logits.0, self.n_vocab())?;
        self.pooled.map_or(Ok(()), |p| write!(f, "\npooled %{} [Pools, {}]", p.0, self.slot(p).cols))
    }
}
