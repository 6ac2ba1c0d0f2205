//! Devices by the names that clients call them, each opened once and with a thread of its own.

use std::sync::{Arc, Mutex};

use ir_engine::device::Device;

use crate::engine::error::{ApiError, Kind};
use crate::engine::output_queue::lock;
use crate::engine::worker::Worker;

/// Opens a device by its name (`cpu`, `gpu`, `gpu:N`, `auto`) that has so many layers of a model on GPUs; an error is one
/// sentence.
pub type OpenDevice = Box<dyn Fn(&str, Option<usize>) -> Result<Device, String> + Send + Sync>;

/// The device of a name and its thread. Names of one device share both.
pub(crate) type Devices = Box<dyn Fn(&str, Option<usize>) -> Result<(Device, Worker), ApiError> + Send + Sync>;

/// Devices kept by name and layers; the oldest beyond these is forgotten, so that clients cannot open any number.
const MOST: usize = 16;

/// Devices that `open` opens.
pub(crate) fn devices(open: OpenDevice) -> Devices {
    type Key = (String, Option<usize>);
    let opened: Mutex<Vec<(Key, (Device, Worker))>> = Mutex::default();
    Box::new(move |name, layers| {
        let mut opened = lock(&opened);
        let key = (name.to_owned(), layers);
        if let Some((_, known)) = opened.iter().find(|(other, _)| *other == key) {
            return Ok(known.clone());
        }
        let device = open(name, layers).map_err(|e| ApiError::param("device", e))?;
        let one = |other: &Device| match (other, &device) {
            (Device::Cpu(a), Device::Cpu(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let worker = match opened.iter().find(|(_, (other, _))| one(other)) {
            Some((_, (_, worker))) => worker.clone(),
            None => Worker::start()
                .map_err(|e| ApiError::new(Kind::Internal, format!("the system gives no thread: {e}")))?,
        };
        if opened.len() == MOST {
            opened.remove(1);
        }
        opened.push((key, (device.clone(), worker.clone())));
        Ok((device, worker))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use ir_engine::cpu::{Cpu, CpuOptions};

    #[test]
    fn names_of_one_device_share_its_thread() {
        let cpu =
            || Device::Cpu(Arc::new(Cpu::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap()));
        let (one, other) = (cpu(), cpu());
        let devices = devices(Box::new(move |name, _| match name {
            "cpu" | "auto" => Ok(one.clone()),
            "second" => Ok(other.clone()),
            _ => Err(format!("there is no device {name}")),
        }));
        let worker = |name: &str| devices(name, None).unwrap().1;
        assert!(worker("cpu").is(&worker("auto")) && worker("cpu").is(&worker("cpu")));
        assert!(!worker("cpu").is(&worker("second")));
        assert_eq!(devices("third", None).unwrap_err().param.as_deref(), Some("device"));
    }
}
