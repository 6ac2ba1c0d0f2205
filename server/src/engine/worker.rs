//! The engine's thread: owns every loaded [`Engine`] and takes turns among them, step by step. Commands come in through a
//! channel, tokens go out to [`Mailbox`]es. It knows no HTTP, no names and no clock but the one it starts with.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ir_engine::error::Error;
use ir_engine::run::{EmbedRequest, Engine, Event, Request, SeqId, Stats, wait};
use tokio::sync::oneshot;

use crate::engine::mailbox::{End, Mailbox, lock};
use crate::engine::meters::Meters;
use crate::error::{ApiError, Kind};

/// What an engine's owner and its observers share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The counts after the last step.
    pub(crate) stats: Mutex<Stats>,
    /// The engine failed in a way that only loading anew helps.
    pub(crate) broken: AtomicBool,
    /// The model's.
    pub(crate) meters: Arc<Meters>,
}

/// What a sequence is for.
pub(crate) enum Work {
    Generate(Box<Request>),
    Embed(EmbedRequest),
}

/// A sequence of a request: a completion, or a text to embed.
pub(crate) struct Submission {
    pub(crate) work: Work,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) place: usize,
}

/// What the thread is told.
pub(crate) enum Command {
    /// Hosts an engine.
    Host { id: u64, engine: Box<Engine>, shared: Arc<Shared> },
    /// Drops an engine.
    Drop { id: u64 },
    /// Queues sequences of one request; says whether the engine takes them, all or none.
    Submit { id: u64, all: Vec<Submission>, reply: oneshot::Sender<Result<(), ApiError>> },
}

struct Hosted {
    engine: Engine,
    shared: Arc<Shared>,
    seqs: HashMap<SeqId, (Arc<Mailbox>, usize)>,
}

/// Starts the thread. It ends when the last sender is gone.
///
/// # Errors
/// Where the system gives no thread.
pub(crate) fn start() -> std::io::Result<Sender<Command>> {
    let (sender, commands) = channel();
    std::thread::Builder::new().name("ir-engine".into()).spawn(move || run(&commands))?;
    Ok(sender)
}

fn run(commands: &Receiver<Command>) {
    let started = Instant::now();
    let clock = move || started.elapsed().as_secs_f64();
    let mut hosted: HashMap<u64, Hosted> = HashMap::new();
    loop {
        let busy = hosted.values().any(|h| !h.engine.is_idle());
        if !busy {
            match commands.recv() {
                Ok(command) => obey(&mut hosted, command, &clock),
                Err(_) => return,
            }
        }
        loop {
            match commands.try_recv() {
                Ok(command) => obey(&mut hosted, command, &clock),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        for host in hosted.values_mut() {
            host.turn(&clock);
        }
    }
}

fn obey(hosted: &mut HashMap<u64, Hosted>, command: Command, clock: &dyn Fn() -> f64) {
    match command {
        Command::Host { id, engine, shared } => {
            hosted.insert(id, Hosted { engine: *engine, shared, seqs: HashMap::new() });
        }
        Command::Drop { id } => {
            if let Some(mut host) = hosted.remove(&id) {
                host.fail(&ApiError::new(Kind::Unavailable, "the model was unloaded: ask again"));
            }
        }
        Command::Submit { id, all, reply } => {
            let result = match hosted.get_mut(&id) {
                Some(host) => host.submit(all, clock()),
                None => Err(ApiError::new(Kind::Unavailable, "the model was unloaded: ask again")),
            };
            // Nobody waits where the client left meanwhile; its mailbox says so too.
            let _ = reply.send(result);
        }
    }
}

impl Hosted {
    fn submit(&mut self, all: Vec<Submission>, now: f64) -> Result<(), ApiError> {
        let mut added = Vec::new();
        for Submission { work, mailbox, place } in all {
            let seq = match work {
                Work::Generate(request) => self.engine.add(*request, now),
                Work::Embed(request) => self.engine.embed(request, now),
            };
            match seq {
                Ok(seq) => {
                    self.seqs.insert(seq, (mailbox, place));
                    added.push(seq);
                }
                Err(error) => {
                    for seq in added {
                        self.seqs.remove(&seq);
                        self.engine.cancel(seq, now);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// One step, if there is anything to do.
    fn turn(&mut self, clock: &dyn Fn() -> f64) {
        let left: Vec<SeqId> = self.seqs.iter().filter(|(_, (m, _))| m.is_left()).map(|(seq, _)| *seq).collect();
        for seq in left {
            self.seqs.remove(&seq);
            self.engine.cancel(seq, clock());
        }
        if self.engine.is_idle() {
            return;
        }
        let preempted = self.engine.stats().preemptions;
        // A panic in a step costs this engine, not the server.
        let step = std::panic::catch_unwind(AssertUnwindSafe(|| wait(self.engine.step(clock))));
        // Before anybody hears of the step: who has an answer finds it counted.
        let (stats, meters) = (self.engine.stats(), &self.shared.meters);
        meters.steps.add(1);
        meters.step_sequences.add(stats.running as u64);
        meters.preemptions.add(stats.preemptions.saturating_sub(preempted));
        *lock(&self.shared.stats) = stats;
        match step {
            Ok(Ok(events)) => events.into_iter().for_each(|event| self.deliver(event, clock())),
            Ok(Err(error)) => self.break_down(&error, clock()),
            Err(_) => self.break_down(&Error::Device("a step panicked: this is a fault of ir".into()), clock()),
        }
    }

    fn deliver(&mut self, event: Event, now: f64) {
        let seq = event.seq();
        let Some((mailbox, place)) = self.seqs.get(&seq) else { return };
        match event {
            Event::Token { id, text, logprobs, .. } => {
                self.shared.meters.generated_tokens.add(1);
                if !mailbox.token(*place, id, &text, logprobs) {
                    self.seqs.remove(&seq);
                    self.engine.cancel(seq, now);
                }
            }
            Event::Done { reason, usage, .. } => {
                mailbox.end(*place, End::Done(reason, usage));
                self.seqs.remove(&seq);
            }
            Event::Embedding { values, usage, .. } => {
                mailbox.end(*place, End::Embedded(values, usage));
                self.seqs.remove(&seq);
            }
            Event::Error { error, .. } => {
                mailbox.end(*place, End::Failed(error.into()));
                self.seqs.remove(&seq);
            }
        }
    }

    /// Ends all that runs here; the model is to be loaded anew.
    fn break_down(&mut self, error: &Error, now: f64) {
        self.shared.broken.store(true, Ordering::Release);
        for seq in self.seqs.keys() {
            self.engine.cancel(*seq, now);
        }
        self.engine.take_events();
        self.fail(&ApiError::new(Kind::Internal, error.to_string()));
    }

    fn fail(&mut self, error: &ApiError) {
        for (_, (mailbox, place)) in self.seqs.drain() {
            mailbox.end(place, End::Failed(error.clone()));
        }
    }
}
