//! Forms of kernels tried when a device is opened, by a known answer: what is promised and not held is done without.

use std::sync::Arc;

use super::dispatch::Key;
use super::planes::{UNIT, feature};
use super::readback::{GpuReadback, Parts, Results, Spare, staging_bytes};
use super::{Gpu, Matrices};
use crate::dtype::DType;
use crate::error::{Error, Result};

const WG: u32 = 64;
/// Cells, and workgroups of each.
const CELLS: u32 = 64;
const WORKGROUPS: u32 = 32;
const ROUNDS: u32 = 8;

/// Rows, columns and units of a product that keeps a large GPU busy, and of one that a processor computes at once. None is a
/// whole number of tiles.
const PRODUCT: [u32; 3] = [520, 552, 15];
const SMALL_PRODUCT: [u32; 3] = [72, 136, 5];
/// Products are added up, so that one that goes wrong now and then shows.
const PRODUCTS: u32 = 4;

/// A kernel that is tried: its buffers and parameters by the names in its text, workgroups, how often it runs.
struct Trial<'a> {
    key: Key,
    buffers: &'a [(&'static str, &'a wgpu::Buffer)],
    params: &'a [(&'static str, u32)],
    workgroups: u32,
    rounds: u32,
}

/// A matrix of whole numbers from -3 to 3, which no shift of rows or columns repeats.
fn numbers(rows: u32, cols: u32, salt: u32) -> Vec<i32> {
    let number = |i: u32| (i.wrapping_mul(40_503).wrapping_add(salt).wrapping_mul(2_654_435_761) >> 16) as i32 % 7 - 3;
    (0..rows * cols).map(|i| number(i + i / cols)).collect()
}

fn halves(numbers: &[i32]) -> Vec<u16> {
    numbers.iter().map(|v| half::f16::from_f32(*v as f32).to_bits()).collect()
}

impl Gpu {
    /// Whether workgroups see in time what others wrote: what the form `coherent` rests on.
    ///
    /// # Errors
    /// Where the device failed.
    pub(super) async fn is_coherent(self: &Arc<Gpu>) -> Result<bool> {
        let parts = self.buffer("probe", u64::from(16 * WG * WORKGROUPS * CELLS));
        let (finished, out) = (self.buffer("probe", u64::from(4 * CELLS)), self.buffer("probe", u64::from(8 * CELLS)));
        let trial = Trial {
            key: Key { kernel: "probe_coherent", features: vec!["COHERENT"], consts: vec![("WG", WG)] },
            buffers: &[("parts", &parts), ("finished", &finished), ("out", &out)],
            params: &[("n", WORKGROUPS), ("n_cells", CELLS)],
            workgroups: CELLS * WORKGROUPS,
            rounds: ROUNDS,
        };
        let read = self.try_out(&trial, &out, Parts { picked: 2 * CELLS as usize, ..Parts::default() }).await?;
        Ok(read.picked.chunks_exact(2).all(|cell| cell == [ROUNDS, 0]))
    }

    /// Whether the kernel of cooperative matrices multiplies as it should: what the form `coopmat` rests on. Factors are small
    /// whole numbers, so that every way of adding up gives the same.
    ///
    /// # Errors
    /// Where the device failed.
    pub(super) async fn multiplies(self: &Arc<Gpu>) -> Result<bool> {
        let [rows, n, units] = if self.description().kind == "software" { SMALL_PRODUCT } else { PRODUCT };
        let cols = units * UNIT as u32;
        let (x, w) = (numbers(rows, cols, 1), numbers(n, cols, 2));
        let (kernel, form, lanes, tile) = self.of_matrices();
        let (x_halves, w_halves) = (halves(&x), halves(&w));
        let x_floats: Vec<f32> = x.iter().map(|v| *v as f32).collect();
        let x_bytes = match form.contains(&"HALVES") {
            true => bytemuck::cast_slice(&x_halves),
            false => bytemuck::cast_slice(&x_floats),
        };
        let ones = vec![1.0f32; rows as usize];
        let out = self.buffer("probe", u64::from(4 * rows * n));
        let step = self.filled(bytemuck::bytes_of(&rows));
        let (x_buffer, factors) = (self.filled(x_bytes), self.filled(bytemuck::cast_slice(&ones)));
        let w_buffer = self.filled(bytemuck::cast_slice(&w_halves));
        let trial = Trial {
            key: Key {
                kernel,
                features: [&[feature(DType::F16), "ADD"], form].concat(),
                consts: vec![("WG", 4 * lanes)],
            },
            buffers: &[("step", &step), ("x", &x_buffer), ("x_factor", &factors), ("w", &w_buffer), ("out", &out)],
            params: &[
                ("n", n),
                ("units", units),
                ("cols", cols),
                ("x_stride", cols),
                ("out_stride", n),
                ("factor", 1f32.to_bits()),
            ],
            workgroups: rows.div_ceil(tile) * n.div_ceil(64),
            rounds: PRODUCTS,
        };
        let read = self.try_out(&trial, &out, Parts { values: (rows * n) as usize, ..Parts::default() }).await?;
        let dot = |row: &[i32], of_w: &[i32]| row.iter().zip(of_w).map(|(a, b)| a * b).sum::<i32>();
        let expected = x
            .chunks_exact(cols as usize)
            .flat_map(|row| w.chunks_exact(cols as usize).map(move |of_w| (PRODUCTS as i32 * dot(row, of_w)) as f32));
        Ok(read.values.iter().copied().eq(expected))
    }

    /// The kernel of the form `coopmat`, its features, invocations of the largest subgroup, rows of a tile.
    fn of_matrices(&self) -> (&'static str, &'static [&'static str], u32, u32) {
        match self.forms().coopmat.unwrap_or_default() {
            Matrices::Sixteen(lanes) => ("linear_sixteen", &["COOPMAT", "F16", "HALVES", "TALL"], lanes, 64),
            Matrices::Plain => ("linear_sixteen", &["PLAIN", "F16", "HALVES", "TALL"], 32, 64),
            Matrices::Listed | Matrices::Eight if self.forms().f16 => ("linear_coop", &["COOPMAT", "F16"], 64, 32),
            Matrices::Listed | Matrices::Eight => ("linear_coop", &["COOPMAT"], 64, 32),
        }
    }

    /// A storage buffer of these bytes.
    fn filled(&self, bytes: &[u8]) -> wgpu::Buffer {
        let buffer = self.buffer("probe", bytes.len() as u64);
        self.queue().write_buffer(&buffer, 0, bytes);
        buffer
    }

    /// Runs a kernel, and reads `parts` of what it leaves in `out`. Parameters that have no value are 0.
    async fn try_out(self: &Arc<Gpu>, trial: &Trial<'_>, out: &wgpu::Buffer, parts: Parts) -> Result<Results> {
        let device = self.device();
        let kernel = self.kernels.get(device, &trial.key)?;
        let find = |name: &String| trial.params.iter().find(|p| p.0 == name).map_or(0, |p| p.1);
        let mut values: Vec<u32> = kernel.composed.params.iter().map(find).collect();
        values.resize(values.len().next_multiple_of(4), 0);
        let params = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: 4 * values.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.queue().write_buffer(&params, 0, bytemuck::cast_slice(&values));
        let mut entries = Vec::new();
        for binding in &kernel.composed.bindings {
            let named = trial.buffers.iter().find(|(name, _)| *name == binding.name).map(|(_, buffer)| *buffer);
            let buffer = if binding.name == "p" { Some(&params) } else { named };
            let buffer = buffer.ok_or_else(|| Error::Device(format!("nothing is bound to {}", binding.name)))?;
            entries.push(wgpu::BindGroupEntry { binding: binding.index, resource: buffer.as_entire_binding() });
        }
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("probe"),
            layout: &kernel.layout,
            entries: &entries,
        });
        let staging = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("results"),
            size: staging_bytes(parts),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(kernel.pipeline(self));
        pass.set_bind_group(0, &bind_group, &[]);
        (0..trial.rounds).for_each(|_| pass.dispatch_workgroups(trial.workgroups, 1, 1));
        drop(pass);
        encoder.copy_buffer_to_buffer(out, 0, &staging, 0, staging_bytes(parts));
        let index = self.queue().submit([encoder.finish()]);
        let read = GpuReadback::new(Arc::clone(self), staging, parts, index, &Spare::default()).await;
        self.check()?;
        read
    }
}
