//! Devices by the names that clients call them, each opened once and with a thread of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ir_engine::device::Device;

use crate::engine::error::{ApiError, Kind};
use crate::engine::output_queue::lock;
use crate::engine::worker::Worker;

/// Opens a device by its name (`cpu`, `gpu`, `gpu:N`, `auto`); an error is one sentence.
pub type OpenDevice = Box<dyn Fn(&str) -> Result<Device, String> + Send + Sync>;

/// The device of a name and its thread. Names of one device share both.
pub(crate) type Devices = Box<dyn Fn(&str) -> Result<(Device, Worker), ApiError> + Send + Sync>;

/// Devices that `open` opens.
pub(crate) fn devices(open: OpenDevice) -> Devices {
    let opened: Mutex<HashMap<String, (Device, Worker)>> = Mutex::default();
    Box::new(move |name| {
        let mut opened = lock(&opened);
        if let Some(known) = opened.get(name) {
            return Ok(known.clone());
        }
        let device = open(name).map_err(|e| ApiError::param("device", e))?;
        let one = |other: &Device| match (other, &device) {
            (Device::Cpu(a), Device::Cpu(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let worker = match opened.values().find(|(other, _)| one(other)) {
            Some((_, worker)) => worker.clone(),
            None => Worker::start()
                .map_err(|e| ApiError::new(Kind::Internal, format!("the system gives no thread: {e}")))?,
        };
        opened.insert(name.to_owned(), (device.clone(), worker.clone()));
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
        let devices = devices(Box::new(move |name| match name {
            "cpu" | "auto" => Ok(one.clone()),
            "second" => Ok(other.clone()),
            _ => Err(format!("there is no device {name}")),
        }));
        let worker = |name: &str| devices(name).unwrap().1;
        assert!(worker("cpu").is(&worker("auto")) && worker("cpu").is(&worker("cpu")));
        assert!(!worker("cpu").is(&worker("second")));
        assert_eq!(devices("third").unwrap_err().param.as_deref(), Some("device"));
    }
}
