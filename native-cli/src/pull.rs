//! `ir pull`, and the progress of whatever comes and goes: a line that is painted over on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ir_store::{Event, ModelName, Plan, Store, Watcher};

use crate::args::PullArgs;
use crate::failure::{Failure, Result};
use crate::info::human_bytes;
use crate::{interrupt, models, term};

/// Fetches a model.
pub(crate) fn pull(args: &PullArgs) -> Result {
    let name = ModelName::parse(&args.model)?;
    let store = models::store(&args.store)?;
    let plan = store.plan(&name)?;
    announce(&plan);
    fetch(&store, plan)
}

/// One line that says what will come and how large it is.
pub(crate) fn announce(plan: &Plan) {
    let count = term::counted(plan.files, "file");
    let size = if plan.bytes == 0 { "of unknown size".to_owned() } else { human_bytes(plan.bytes) };
    let here = match plan.missing {
        0 if plan.bytes > 0 => ", which is here already".to_owned(),
        missing if missing < plan.bytes => format!(", {} of it not here yet", human_bytes(missing)),
        _ => String::new(),
    };
    term::remark(&format!("Pulling {} from {}: {size} in {count}{here}", plan.name.short(), plan.source));
    if !plan.aside.is_empty() {
        term::remark(&format!("Left aside, since images are not read yet: {}", plan.aside.join(", ")));
    }
}

/// Fetches what a plan says.
pub(crate) fn fetch(store: &Arc<Store>, plan: Plan) -> Result {
    let name = plan.name.short();
    follow(store.pull_planned(plan)?, &format!("`ir pull {name}` goes on from here"))
}

/// Shows how it goes on until it ends. Ctrl-C stops it; `then` says how to go on.
pub(crate) fn follow(mut watcher: Watcher, then: &str) -> Result {
    let stop = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&stop);
    interrupt::on(move || {
        // The first asks it to end well; who presses twice does not wait.
        if counter.fetch_add(1, Ordering::Relaxed) >= 1 {
            std::process::exit(i32::from(Failure::Interrupted.code()));
        }
    });
    let mut shown = Shown::new();
    loop {
        if stop.load(Ordering::Relaxed) > 0 {
            watcher.stop();
        }
        match watcher.wait(Duration::from_millis(100)) {
            None => {}
            Some(Some(Ok(event))) => shown.event(event),
            Some(None) => {
                shown.close();
                return Ok(());
            }
            Some(Some(Err(error))) => {
                shown.close();
                if error.kind == ir_store::Kind::Cancelled {
                    term::remark(&format!("Stopped. What has arrived is kept: {then}."));
                    return Err(Failure::Interrupted);
                }
                return Err(error.into());
            }
        }
    }
}

/// What is shown at the moment.
struct Shown {
    terminal: bool,
    status: String,
    begun: Instant,
    painted: Option<Instant>,
    /// Bytes that were here when this step began.
    first: Option<u64>,
    tenth: u64,
}

impl Shown {
    fn new() -> Shown {
        let terminal = std::io::stderr().is_terminal();
        Shown { terminal, status: String::new(), begun: Instant::now(), painted: None, first: None, tenth: 0 }
    }

    fn event(&mut self, event: Event) {
        if event.status != self.status {
            self.close();
            self.status.clone_from(&event.status);
            (self.begun, self.first, self.tenth) = (Instant::now(), None, 0);
            if !self.terminal {
                term::remark(&event.status);
            }
        }
        let Some(completed) = event.completed else {
            if self.terminal {
                self.paint(&event.status);
            }
            return;
        };
        let first = *self.first.get_or_insert(completed);
        let whole = event.total.is_some_and(|t| t == completed);
        if self.terminal {
            let due = self.painted.is_none_or(|at| at.elapsed() > Duration::from_millis(80));
            if due || whole {
                let text =
                    format!("{}  {}", event.status, figures(completed, event.total, first, self.begun.elapsed()));
                self.paint(&text);
            }
            return;
        }
        // Elsewhere a line for every tenth.
        let tenth = event.total.filter(|t| *t > 0).map_or(0, |t| completed.saturating_mul(10) / t);
        if tenth > self.tenth {
            self.tenth = tenth;
            term::remark(&format!(
                "{}  {}",
                event.status,
                figures(completed, event.total, first, self.begun.elapsed())
            ));
        }
    }

    fn paint(&mut self, text: &str) {
        self.painted = Some(Instant::now());
        let text = term::cut(&term::one_line(text), term::width().saturating_sub(1));
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
    }

    /// Leaves the line as it is.
    fn close(&mut self) {
        if self.terminal && self.painted.take().is_some() {
            let _ = writeln!(std::io::stderr());
        }
    }
}

/// `45 %  1.2 GB of 4.9 GB  85.0 MB/s  43 s left`.
fn figures(completed: u64, total: Option<u64>, first: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let rate = if seconds > 0.0 { (completed.saturating_sub(first)) as f64 / seconds } else { 0.0 };
    let Some(total) = total.filter(|t| *t > 0) else { return human_bytes(completed) };
    let percent = completed.saturating_mul(100) / total;
    let mut text = format!("{percent:>3} %  {} of {}", human_bytes(completed), human_bytes(total));
    if rate >= 1.0 && completed > first {
        text += &format!("  {}/s", human_bytes(rate as u64));
        let left = (total.saturating_sub(completed)) as f64 / rate;
        if completed < total {
            text += &match left as u64 {
                s @ 0..60 => format!("  {s} s left"),
                s @ 60..3600 => format!("  {} min left", s / 60 + 1),
                s => format!("  {} h left", s / 3600 + 1),
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_remaining_time() {
        let text = figures(500_000_000, Some(1_000_000_000), 100_000_000, Duration::from_secs(4));
        assert_eq!(text, " 50 %  500.0 MB of 1.00 GB  100.0 MB/s  5 s left");
        assert_eq!(figures(7, None, 0, Duration::from_secs(1)), "7 B");
        assert_eq!(figures(10, Some(10), 10, Duration::ZERO), "100 %  10 B of 10 B");
    }
}
