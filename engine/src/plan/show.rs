//! A plan as text, for people and for snapshot tests.

use std::fmt::{Display, Formatter, Result};

use super::{AttentionMask, Epilogue, Gated, Lookup, Norm, Op, Plan, Prologue, Rows, Slot, View, WeightId};

impl Display for Rows {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Rows::Tokens => "Tokens",
            Rows::Outputs => "Outputs",
            Rows::Pools => "Pools",
            Rows::Sources => "Sources",
            Rows::Adapted => "Adapted",
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

impl Display for Show<'_, Norm> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Norm { kind, eps, group, weight, bias } = self.1;
        write!(f, "{kind:?} eps={eps:e} group={group}")?;
        weight.map_or(Ok(()), |w| write!(f, " * {}", Show(self.0, w)))?;
        bias.map_or(Ok(()), |b| write!(f, " + {}", Show(self.0, b)))
    }
}

impl Display for Gated {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Gated { act, limit, limits_result, up_offset } = *self;
        write!(f, "{act:?}")?;
        if limit.is_finite() {
            write!(f, " limit={limit}{}", if limits_result { " behind" } else { "" })?;
        }
        if up_offset != 0.0 {
            write!(f, " up+{up_offset}")?;
        }
        Ok(())
    }
}

impl Plan {
    fn show_then(&self, then: Epilogue, f: &mut Formatter<'_>) -> Result {
        match then {
            Epilogue::Store { out: _ } => Ok(()),
            Epilogue::Add { to, factor: 1.0, product: _ } => write!(f, ", add to %{}", to.0),
            Epilogue::Add { to, factor, product: _ } => write!(f, ", add {factor} times to %{}", to.0),
            Epilogue::Act { act, out: _ } => write!(f, ", {act:?}"),
            Epilogue::Glu { gated, product: _, out: _ } => write!(f, ", glu {gated}"),
            Epilogue::Heads { heads, out: _ } => {
                let h = &self.heads[heads];
                write!(f, ", heads {}/{} layer={}", h.n_heads, self.kv[h.layer].n_kv_heads, h.layer)?;
                h.clamp.map_or(Ok(()), |clamp| write!(f, " clamp={clamp}"))?;
                for (name, norm) in [("q", h.q_norm), ("k", h.k_norm), ("v", h.v_norm)] {
                    norm.map_or(Ok(()), |norm| write!(f, " {name}=({})", Show(self, norm)))?;
                }
                h.rope.map_or(Ok(()), |rope| write!(f, " rope={rope}"))?;
                if h.norms_after_rope { write!(f, " then norms") } else { Ok(()) }
            }
        }
    }

    fn show_op(&self, op: &Op, f: &mut Formatter<'_>) -> Result {
        let (s, v, w) = (|x: Slot| format!("%{}", x.0), |x| Show(self, x), |x| Show(self, x));
        if let (Some(out), false) = (op.writes(), op.is_in_place()) {
            write!(f, "{} = ", Show(self, out))?;
        }
        write!(f, "{} ", op.kind().name())?;
        match *op {
            Op::Embed { table, by, out: _ } => {
                let by = match by {
                    Lookup::Token => "",
                    Lookup::Position => " by position",
                    Lookup::Segment => " by segment",
                };
                write!(f, "{}{by}", w(table))
            }
            Op::AdapterScales { out } => write!(f, "of {}", self.slot(out).cols),
            Op::Norm { x, norm, out: _ } => write!(f, "{} {}", v(x), Show(self, norm)),
            Op::Linear { x, norm, weight, scale, bias, then } => {
                match norm {
                    Some(Prologue { norm, normed: _ }) => write!(f, "norm({} {}) ", s(x), Show(self, norm))?,
                    None => write!(f, "{} ", s(x))?,
                }
                write!(f, "{}", w(weight))?;
                scale.map_or(Ok(()), |scale| write!(f, " * {}", w(scale)))?;
                bias.map_or(Ok(()), |bias| write!(f, " + {}", w(bias)))?;
                self.show_then(then, f)
            }
            Op::Rope { x, head_dim, first, rope } => {
                write!(f, "{} head_dim={head_dim} from {first} table={rope}", v(x))
            }
            Op::KvWrite { k, tail, v: values, layer } => {
                write!(f, "{} layer={layer}", v(k))?;
                tail.map_or(Ok(()), |tail| write!(f, " tail={}", v(tail)))?;
                values.map_or(Ok(()), |values| write!(f, " v={}", v(values)))
            }
            Op::HeadLinear { x, weight, n_heads, pass, out: _ } => {
                write!(f, "{} {} heads={n_heads} pass={pass}", s(x), w(weight))
            }
            Op::Attend {
                q,
                layer,
                n_heads,
                scale,
                cap,
                mask,
                window,
                chunk,
                chosen,
                temperature,
                slopes,
                relative,
                sinks,
                out: _,
            } => {
                write!(f, "{} layer={layer} heads={n_heads}/{} scale={scale:.6}", v(q), self.kv[layer].n_kv_heads)?;
                cap.map_or(Ok(()), |cap| write!(f, " cap={cap}"))?;
                if mask != AttentionMask::Causal {
                    write!(f, " mask={mask:?}")?;
                }
                window.map_or(Ok(()), |window| write!(f, " window={window}"))?;
                chunk.map_or(Ok(()), |chunk| write!(f, " chunk={chunk}"))?;
                chosen.map_or(Ok(()), |chosen| write!(f, " of {}", s(chosen)))?;
                temperature.map_or(Ok(()), |t| write!(f, " temperature={t:?}"))?;
                slopes.map_or(Ok(()), |slopes| write!(f, " slopes={}", w(slopes)))?;
                relative
                    .map_or(Ok(()), |of| write!(f, " relative={} in {} to {}", w(of.weight), of.buckets, of.far))?;
                sinks.map_or(Ok(()), |sinks| write!(f, " sinks={}", w(sinks)))
            }
            Op::Select { q, weights, layer, out } => {
                write!(f, "{} {} layer={layer} top={}", v(q), v(weights), self.slot(out).cols)
            }
            Op::Route { x, bias, routing, out: _ } => {
                write!(f, "{} {routing:?}", s(x))?;
                bias.map_or(Ok(()), |bias| write!(f, " + {}", w(bias)))
            }
            Op::ExpertLinear { x, each, pick, weight, scale, bias, then } => {
                let each = if each { " each" } else { "" };
                write!(f, "{}{each} {}/{} by {} {}", s(x), pick.used, pick.of, s(pick.picks), w(weight))?;
                scale.map_or(Ok(()), |scale| write!(f, " * {}", w(scale)))?;
                bias.map_or(Ok(()), |bias| write!(f, " + {}", w(bias)))?;
                self.show_then(then, f)
            }
            Op::Combine { x, pick, weighted, out: _ } => {
                write!(f, "{} by {}{}", s(x), s(pick.picks), if weighted { "" } else { " without weights" })
            }
            Op::Gate { x, gate, act, group } => write!(f, "{} {} {act:?} group={group}", v(x), v(gate)),
            Op::Mix { x, coef, width, out: _ } => write!(f, "{} by {} width={width}", v(x), v(coef)),
            Op::Conv { x, weight, bias, act, state, out: _ } => {
                write!(f, "{} {} state={state}", v(x), w(weight))?;
                bias.map_or(Ok(()), |bias| write!(f, " + {}", w(bias)))?;
                act.map_or(Ok(()), |act| write!(f, ", {act:?}"))
            }
            Op::Recur { q, k, v: values, decay, rates, beta, v_scale, skip, form, state, out: _ } => {
                write!(f, "{} {} {} decay={} state={state} {form:?}", v(q), v(k), v(values), v(decay))?;
                rates.map_or(Ok(()), |rates| write!(f, " * {}", w(rates)))?;
                beta.map_or(Ok(()), |beta| write!(f, " beta={}", v(beta)))?;
                v_scale.map_or(Ok(()), |scale| write!(f, " v*{}", v(scale)))?;
                skip.map_or(Ok(()), |skip| write!(f, " + v*{}", w(skip)))
            }
            Op::Act { x, act, bias, factor } => {
                write!(f, "{} {act:?}", v(x))?;
                bias.map_or(Ok(()), |bias| write!(f, " of +{}", w(bias)))?;
                factor.map_or(Ok(()), |factor| write!(f, " * {}", w(factor)))
            }
            Op::Balance { x, n, rounds, eps } => write!(f, "{} {n} x {n}, {rounds} rounds, eps={eps:e}", v(x)),
            Op::Glu { x, gated, out: _ } => write!(f, "{} {gated}", s(x)),
            Op::Add { x, y, factor: 1.0 } => write!(f, "{} {}", s(x), s(y)),
            Op::Add { x, y, factor } => write!(f, "{} {factor} times {}", s(x), s(y)),
            Op::Scale { x, factor, weight } => {
                write!(f, "{} {factor}", s(x))?;
                weight.map_or(Ok(()), |weight| write!(f, " * {}", w(weight)))
            }
            Op::Softcap { x, cap } => write!(f, "{} {cap}", s(x)),
            Op::TakeCols { x, columns, out: _ } => write!(f, "{} by {}", s(x), w(columns)),
            Op::TakeRows { x, out: _ } | Op::Pool { x, out: _ } => write!(f, "{}", s(x)),
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
            write!(f, "  ")?;
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
