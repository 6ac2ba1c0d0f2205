//! [`Worker`]: a thread of each device, which owns the [`Engine`]s on it and takes turns among them, step by step: they share
//! the device, and one on another device never waits for it. Commands come in through a channel, tokens go out to
//! [`OutputQueue`]es. No HTTP, no names of models, and no clock but the one it starts with.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ir_engine::error::Error;
use ir_engine::run::{EmbedRequest, Engine, Event, RankRequest, Request, SeqId, Stats, wait};
use tokio::sync::oneshot;

use crate::engine::error::{ApiError, Kind, panicked, unloaded};
use crate::engine::output_queue::{End, OutputQueue, lock};
use crate::engine::stats::Counters;

/// What an engine's owner and its observers share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The counts after the last step.
    pub(crate) stats: Mutex<Stats>,
    /// The engine failed in a way that only loading anew helps.
    pub(crate) broken: AtomicBool,
    /// The model's.
    pub(crate) counters: Arc<Counters>,
}

/// What a sequence is for.
pub(crate) enum Work {
    Generate(Box<Request>),
    Embed(EmbedRequest),
    /// A query and a text, joined, to score.
    Rank(RankRequest),
}

/// A sequence of a request: a completion, or a text to embed.
pub(crate) struct Submission {
    pub(crate) work: Work,
    pub(crate) output_queue: Arc<OutputQueue>,
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

/// The way to a device's thread, which ends when the last one is gone. A closure, since a channel of engines names all
/// types of wgpu, and the compiler would look through them for every future that holds a way.
#[derive(Clone)]
pub(crate) struct Worker(Arc<dyn Fn(Command) -> Result<(), ApiError> + Send + Sync>);

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

struct Hosted {
    engine: Engine,
    shared: Arc<Shared>,
    seqs: HashMap<SeqId, (Arc<OutputQueue>, usize)>,
}

impl Worker {
    /// Starts a device's thread.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(crate) fn start() -> std::io::Result<Worker> {
        let (sender, commands) = channel();
        std::thread::Builder::new().name("ir-engine".into()).spawn(move || run(&commands))?;
        Ok(Worker(Arc::new(move |command| sender.send(command).map_err(|_| panicked()))))
    }

    /// Whether both lead to one thread.
    #[cfg(test)]
    pub(crate) fn is(&self, other: &Worker) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Hosts an engine by this number.
    ///
    /// # Errors
    /// Where the thread is gone.
    pub(crate) fn host(&self, id: u64, engine: Box<Engine>, shared: Arc<Shared>) -> Result<(), ApiError> {
        (self.0)(Command::Host { id, engine, shared })
    }

    /// Drops an engine.
    pub(crate) fn drop_engine(&self, id: u64) {
        // Without its thread there is nothing to drop.
        let _ = (self.0)(Command::Drop { id });
    }

    /// Queues sequences of one request, all or none.
    ///
    /// # Errors
    /// What the engine refuses; where it was dropped.
    pub(crate) async fn submit(&self, id: u64, all: Vec<Submission>) -> Result<(), ApiError> {
        let (reply, answer) = oneshot::channel();
        (self.0)(Command::Submit { id, all, reply })?;
        answer.await.map_err(|_| panicked())?
    }
}

fn run(commands: &Receiver<Command>) {
    let started = Instant::now();
    let clock = move || started.elapsed().as_secs_f64();
    let mut hosted: HashMap<u64, Hosted> = HashMap::new();
    loop {
        let busy = hosted.values().any(|h| !h.engine.is_idle());
        if !busy {
            match commands.recv() {
                Ok(command) => handle(&mut hosted, command, &clock),
                Err(_) => return,
            }
        }
        loop {
            match commands.try_recv() {
                Ok(command) => handle(&mut hosted, command, &clock),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        for host in hosted.values_mut() {
            host.turn(&clock);
        }
    }
}

fn handle(hosted: &mut HashMap<u64, Hosted>, command: Command, clock: &dyn Fn() -> f64) {
    match command {
        Command::Host { id, engine, shared } => {
            hosted.insert(id, Hosted { engine: *engine, shared, seqs: HashMap::new() });
        }
        Command::Drop { id } => {
            if let Some(mut host) = hosted.remove(&id) {
                host.fail(&unloaded());
            }
        }
        Command::Submit { id, all, reply } => {
            let result = match hosted.get_mut(&id) {
                Some(host) => host.submit(all, clock()),
                None => Err(unloaded()),
            };
            // Nobody waits where the client left meanwhile; its output queue says so too.
            let _ = reply.send(result);
        }
    }
}

impl Hosted {
    fn submit(&mut self, all: Vec<Submission>, now: f64) -> Result<(), ApiError> {
        let mut added = Vec::new();
        for Submission { work, output_queue, place } in all {
            let seq = match work {
                Work::Generate(request) => self.engine.add(*request, now),
                Work::Embed(request) => self.engine.embed(request, now),
                Work::Rank(pair) => self.engine.rank(pair, now),
            };
            match seq {
                Ok(seq) => {
                    self.seqs.insert(seq, (output_queue, place));
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
        let left: Vec<SeqId> = self.seqs.iter().filter(|(_, (m, _))| m.is_closed()).map(|(seq, _)| *seq).collect();
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
        let (stats, counters) = (self.engine.stats(), &self.shared.counters);
        counters.steps.add(1);
        counters.step_sequences.add(stats.running as u64);
        counters.preemptions.add(stats.preemptions.saturating_sub(preempted));
        *lock(&self.shared.stats) = stats;
        match step {
            Ok(Ok(events)) => events.into_iter().for_each(|event| self.deliver(event, clock())),
            Ok(Err(error)) => self.break_down(&error, clock()),
            Err(_) => self.break_down(&Error::Device("a step panicked: this is a fault of ir".into()), clock()),
        }
    }

    fn deliver(&mut self, event: Event, now: f64) {
        let seq = event.seq();
        let Some((output_queue, place)) = self.seqs.get(&seq) else { return };
        match event {
            Event::Token { id, text, logprobs, .. } => {
                self.shared.counters.generated_tokens.add(1);
                if !output_queue.token(*place, id, &text, logprobs) {
                    self.seqs.remove(&seq);
                    self.engine.cancel(seq, now);
                }
            }
            Event::Done { reason, usage, .. } => {
                output_queue.end(*place, End::Done(reason, usage));
                self.seqs.remove(&seq);
            }
            Event::Embedding { values, usage, .. } => {
                output_queue.end(*place, End::Embedded(values, usage));
                self.seqs.remove(&seq);
            }
            Event::Error { error, .. } => {
                output_queue.end(*place, End::Failed(error.into()));
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
        for (_, (output_queue, place)) in self.seqs.drain() {
            output_queue.end(place, End::Failed(error.clone()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use ir_engine::builtin;
    use ir_engine::cpu::{Cpu, CpuOptions};
    use ir_engine::device::Device;
    use ir_engine::model::{Model, ModelOptions};
    use ir_engine::run::{EngineOptions, Sampling};
    use ir_engine::text::constrain::{Constraint, Rules};
    use std::sync::mpsc::Sender;

    /// Allows everything, but only when it is let.
    struct Waiting(Arc<Mutex<Receiver<()>>>, Sender<()>, Vec<u32>);

    impl Rules for Waiting {
        fn allowed(&mut self) -> ir_engine::Result<&[u32]> {
            let _ = self.1.send(());
            let _ = lock(&self.0).recv();
            Ok(&self.2)
        }
        fn accept(&mut self, _: u32) -> ir_engine::Result<()> {
            Ok(())
        }
        fn accept_text(&mut self, _: &[u8]) -> ir_engine::Result<()> {
            Ok(())
        }
        fn is_done(&self) -> bool {
            false
        }
        fn is_complete(&mut self) -> ir_engine::Result<bool> {
            Ok(false)
        }
        fn fork(&self) -> Box<dyn Rules> {
            Box::new(Waiting(Arc::clone(&self.0), self.1.clone(), self.2.clone()))
        }
    }

    fn hosting() -> Worker {
        let model = Arc::new(Model::from_bytes(builtin::bytes(), &ModelOptions::default()).unwrap());
        let cpu = Cpu::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
        let options = EngineOptions { kv_budget: 8 << 20, ..EngineOptions::default() };
        let engine = Engine::new(model, &Device::Cpu(Arc::new(cpu)), &options).unwrap();
        let worker = Worker::start().unwrap();
        worker.host(1, Box::new(engine), Arc::default()).unwrap();
        worker
    }

    async fn asked(worker: &Worker, constraint: Option<Constraint>) -> Arc<OutputQueue> {
        let sampling = Sampling::greedy();
        let request = Request { prompt: vec![1], max_tokens: Some(3), sampling, constraint, ..Request::default() };
        let output_queue = Arc::new(OutputQueue::new(1));
        let work = Work::Generate(Box::new(request));
        worker.submit(1, vec![Submission { work, output_queue: Arc::clone(&output_queue), place: 0 }]).await.unwrap();
        output_queue
    }

    async fn ended(output_queue: &OutputQueue) -> End {
        loop {
            if let Some(end) = output_queue.take().await.1.end {
                return end;
            }
        }
    }

    #[tokio::test]
    async fn an_engine_that_waits_does_not_stall_one_on_another_device() {
        let (slow, fast) = (hosting(), hosting());
        let ((go, gone), (here, arrived)) = (channel(), channel());
        let all = vec![u32::MAX; 1 << 12];
        let rules = Waiting(Arc::new(Mutex::new(gone)), here, all);
        let waiting = asked(&slow, Some(Constraint::new(rules))).await;
        // In the middle of a step, and there it stays.
        arrived.recv().unwrap();
        assert!(matches!(ended(&*asked(&fast, None).await).await, End::Done(..)));
        assert!(waiting.try_take().is_none(), "it went on by itself");
        drop(go);
        assert!(matches!(ended(&waiting).await, End::Done(..)));
    }
}
