//! The road of a map call, from the choice to the result: one road for the blocking, the submitted and the streamed.

mod warm;

use crate::backends::threading;
use crate::context::{self, Chosen, InnerLimit, MAX_DEPTH, Setting, Snapshot, TaskSurroundings};
use crate::cpu::{FloatMode, ticks};
use crate::job::{Items, Job, Parent, Plan, Progress, Rules, Task};
use crate::limits::{self, ProcessLimit};
use crate::registry::Opened;
use crate::status::{Error, Result, Status};
use crate::trace;
use std::sync::{Arc, OnceLock};
use warm::{Key, Warm};

/// Where a map would like to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Hard: a backend without shared memory is replaced by `threading`.
    pub shared_memory: bool,
    /// Soft: `threading` where no backend was chosen.
    pub threads: bool,
    /// Soft: worker processes where no backend was chosen, outside tasks.
    pub processes: bool,
    /// Whether such workers could be those of `loky`, which need not be forked; found out when the call is made.
    pub lasting: bool,
}

/// A map call as the caller made it, but for its task.
#[derive(Default)]
pub struct Request {
    /// How many items there are.
    pub n_items: usize,
    /// The call's own number of workers; 0 for the context's.
    pub n_jobs: i32,
    /// Where it would like to run.
    pub wishes: Wishes,
    /// How its items are run.
    pub rules: Rules,
    /// Who wants to hear of progress.
    pub progress: Option<Arc<Progress>>,
}

/// A call whose backend is open and whose workers are counted.
struct Call {
    job: Arc<Job>,
    choice: Box<Warm>,
}

/// What applies to a call: the backend, and how many workers it would use.
struct Choice {
    opened: Arc<Opened>,
    workers: i32,
    /// See [`Plan::most_workers`].
    most: usize,
}

fn named(name: &'static str) -> Chosen {
    Chosen::Named(name.into())
}

/// Chooses the backend and counts its workers, before the number of items is looked at.
fn choose(snapshot: &Snapshot, n_jobs: i32, wishes: Wishes) -> Result<Choice> {
    let setting = &snapshot.setting;
    let said = if n_jobs != 0 { n_jobs } else { setting.n_jobs.unwrap_or(-1) };
    let inner = setting.inner.unwrap_or(0);
    let mut chosen = setting.backend.clone().unwrap_or_else(|| named("threading"));
    if wishes.threads && !snapshot.backend_was_chosen {
        chosen = named("threading");
    }
    // Inside a task the nesting rule stands: a preference must not multiply processes.
    if wishes.processes && !snapshot.backend_was_chosen && snapshot.place.level == 0 {
        chosen = named(if wishes.lasting { "loky" } else { "multiprocessing" });
    }
    let mut opened = chosen.session(said, inner)?;
    if wishes.shared_memory && !opened.backend.shares_memory() {
        opened = named("threading").session(said, inner)?;
    }
    let all = if said < 0 { opened.session.max_n_jobs()? } else { None };
    let asked = context::normalise(said, || all.unwrap_or_else(|| snapshot.place.cpus()));
    let workers = opened.session.effective_n_jobs(asked)?;
    if workers < 1 {
        return Err(Error::new(
            Status::ERR_BACKEND_UNAVAILABLE,
            format!("backend '{}' has no active worker: its effective_n_jobs says {workers}", opened.name),
        ));
    }
    Ok(Choice { opened, workers, most: most_workers(said, workers) })
}

/// What a number of workers, as the caller has said it, means where more come than the `workers` that it stands for now.
fn most_workers(said: i32, workers: i32) -> usize {
    let most = match said {
        -1 => 0,
        said if said < 0 => workers,
        said => said,
    };
    usize::try_from(most).unwrap_or(0)
}

/// Workers that a map would use under this thread's context; 0 asks for the context's own number.
pub fn effective_n_jobs(n_jobs: i32) -> Result<i32> {
    Ok(choose(&context::resolve()?, n_jobs, Wishes::default())?.workers)
}

/// Workers that a call with these wishes would have under this thread's context, if it had items enough.
pub fn workers(wishes: Wishes) -> Result<usize> {
    Ok(usize::try_from(choose(&context::resolve()?, 0, wishes)?.workers).unwrap_or(1))
}

/// What maps inside the tasks of this one start from.
fn nested(opened: &Opened, level: i32, inner: Option<i32>) -> Result<Setting> {
    let name = match opened.session.nested_backend(level)? {
        Some(name) => name.into(),
        None if level == 1 => "threading".into(),
        None => "sequential".into(),
    };
    Ok(Setting { backend: Some(Chosen::Named(name)), n_jobs: None, inner })
}

/// What the tasks of a call with `seats` workers find around them. `workers` is what it would have with items enough.
fn surroundings(
    snapshot: &Snapshot,
    opened: &Opened,
    workers: i32,
    seats: usize,
) -> Result<TaskSurroundings> {
    let place = &snapshot.place;
    let inner = snapshot.setting.inner;
    // A call with one worker runs on the caller's thread as a plain loop would: it changes nothing around its tasks.
    let alone = workers == 1 && opened.backend.shares_memory();
    let level = if alone { place.level } else { place.level + 1 };
    Ok(TaskSurroundings {
        setting: if alone { snapshot.setting.clone() } else { nested(opened, level, inner)? },
        backend_was_chosen: alone && snapshot.backend_was_chosen,
        level,
        budget: place.budget,
        counted: OnceLock::new(),
        depth: place.depth + 1,
        workers: seats,
        limit: match inner {
            _ if opened.backend.applies_inner_limits() => InnerLimit::None,
            Some(threads) => InnerLimit::Exact(threads),
            None if alone => InnerLimit::None,
            None => InnerLimit::Share,
        },
        float: FloatMode::here(),
        pins: if place.parent.is_none() { opened.session.pins() } else { None },
    })
}

/// What a map without options of its own would use on this thread, if it had items enough.
pub struct Outlook {
    /// The backend in force.
    pub backend: Arc<str>,
    /// Its workers.
    pub workers: i32,
    /// Threads of BLAS and OpenMP in the tasks of a worker, and how many workers have that number. Empty where the
    /// map leaves the libraries as they are, or leaves them to the backend.
    pub inner_limits: Vec<(i32, usize)>,
}

/// Says what a map would use under this thread's context, without running one.
pub fn outlook() -> Result<Outlook> {
    let snapshot = context::resolve()?;
    let Choice { opened, workers, .. } = choose(&snapshot, 0, Wishes::default())?;
    let seats = usize::try_from(workers).unwrap_or(1);
    let around = surroundings(&snapshot, &opened, workers, seats)?;
    let threads = |seat| around.limit(seat).map(|limit| limit.threads);
    // The first workers have the odd CPUs, so there are two numbers at most.
    let (first, last) = (threads(0), threads(seats - 1));
    let inner_limits = match (first, last) {
        (Some(more), Some(less)) if more != less => {
            let with_more = (0..seats).take_while(|seat| threads(*seat) == first).count();
            vec![(more, with_more), (less, seats - with_more)]
        }
        (Some(same), _) => vec![(same, seats)],
        (None, _) => Vec::new(),
    };
    Ok(Outlook { backend: opened.name.clone(), workers, inner_limits })
}

/// Chooses anew what a call needs.
fn resolve(task: &dyn Task, request: &Request, key: Option<Key>) -> Result<(Box<Warm>, Parent)> {
    let snapshot = context::resolve()?;
    let place = &snapshot.place;
    if place.depth >= MAX_DEPTH {
        return Err(Error::new(
            Status::ERR_UNSUPPORTED,
            format!("maps are nested {MAX_DEPTH} deep: this looks like a task that calls itself without end"),
        ));
    }
    let wishes = request.wishes;
    #[cfg(target_os = "linux")]
    let lasting = wishes.processes && crate::backends::loky::can_run(task);
    #[cfg(not(target_os = "linux"))]
    let lasting = false;
    let wishes = Wishes { lasting, ..wishes };
    let Choice { opened, workers, most } = choose(&snapshot, request.n_jobs, wishes)?;
    let seats = usize::try_from(workers).unwrap_or(1).min(request.n_items).max(1);
    let mut around = surroundings(&snapshot, &opened, workers, seats)?;
    // A worker of another process may have libraries that this one has not.
    if around.limit == InnerLimit::Share && opened.backend.inherits() && limits::nothing_to_limit() {
        around.limit = InnerLimit::None;
    }
    let asked = if request.n_jobs != 0 { request.n_jobs } else { snapshot.setting.n_jobs.unwrap_or(-1) };
    // A number of workers stays what it is where it was said, or counted of CPUs that the task around the call owns.
    let is_fixed = asked > 0 || place.budget.is_some();
    let is_outermost = asked > 0 && place.parent.is_none();
    // With several workers there may be libraries to limit, which the key does not say.
    let is_alone_in_task = is_fixed && workers == 1 && around.limit == InnerLimit::None;
    let is_known = |key: &Key| if key.is_in_task() { is_alone_in_task } else { is_outermost };
    // Which processes a preference means depends on the task.
    let stays = !request.wishes.processes && opened.session.is_steady();
    let (key, around) = (key.filter(|key| stays && is_known(key)), Arc::new(around));
    let choice = Warm { key, workers, most, opened, around, began: 0, spare: None, twin: None };
    Ok((Box::new(choice), snapshot.place.parent))
}

fn prepare<T: Task>(mut task: T, begun: Begun) -> Result<Call> {
    let Begun { request, started, last } = begun;
    let (mut choice, resolved) = match last {
        Some(choice) => (choice, None),
        None => {
            let (choice, parent) = resolve(&task, request, Key::here(request, started))?;
            (choice, Some(parent))
        }
    };
    choice.began = started;
    choice.twin = None;
    let items = items(request, &choice, started);
    if let Some(spare) = choice.spare.take() {
        match spare.again(task, &items) {
            Ok(job) => return Ok(Call { job, choice }),
            Err(unused) => task = unused,
        }
    }
    let Items { n_items, rules, most_workers, progress, started } = items;
    let (n_jobs, around) = (choice.around.workers, choice.around.clone());
    let (rules, progress) = (*rules, progress.cloned());
    let parent = resolved.unwrap_or_else(|| choice.parent());
    let task = Box::new(task);
    let plan = Plan { task, n_items, n_jobs, rules, most_workers, around, parent, progress, started };
    Ok(Call { job: Job::new(plan), choice })
}

fn items<'a>(request: &'a Request, choice: &Warm, started: u64) -> Items<'a> {
    let Request { n_items, rules, progress, .. } = request;
    Items { n_items: *n_items, rules, most_workers: choice.most, progress: progress.as_ref(), started }
}

impl Call {
    /// Runs the job, within its limits.
    fn run(&self) -> Result<()> {
        let Warm { opened, around, .. } = &*self.choice;
        let _timeline = self.job.map_span(&opened.name, around.level);
        let here = around.process_limit().filter(|_| opened.backend.inherits());
        let _limit: Option<ProcessLimit> = here.map(limits::enter_process);
        if self.job.n_items() == 0 { Ok(()) } else { opened.session.run(&self.job) }
    }

    /// Runs a submitted job. Its end is told last, when the call holds neither limits nor the backend's session any more.
    fn drive(self) {
        let ran = self.run();
        let backend = self.choice.opened.name.clone();
        drop(self.choice);
        // The outcome is kept by the job.
        let _ = self.job.finish(&backend, ran);
    }
}

/// A call that has begun, but for its task.
pub struct Begun<'r> {
    request: &'r Request,
    /// When, by [`ticks`].
    started: u64,
    last: Option<Box<Warm>>,
}

/// Begins a call on this thread.
#[inline]
pub fn begin(request: &Request) -> Result<Begun<'_>> {
    trace::heed_environment()?;
    let started = ticks();
    Ok(Begun { request, started, last: Warm::last(request, started) })
}

impl Begun<'_> {
    /// Runs the call if it is this thread's last one once more; `is_same` says whether that one's task would be this one's.
    #[inline]
    pub fn repeat<T: Task>(&mut self, is_same: impl FnOnce(&T) -> bool) -> Option<Result<()>> {
        let last = self.last.take()?;
        let items = items(self.request, &last, self.started);
        match last.repeat(&items, is_same) {
            Ok(result) => Some(result),
            Err(last) => {
                self.last = Some(last);
                None
            }
        }
    }

    /// Runs the call to its end.
    pub fn run<T: Task>(self, task: T) -> Result<()> {
        let call = prepare(task, self)?;
        let ran = call.run();
        let result = call.job.finish(&call.choice.opened.name, ran);
        call.choice.keep(call.job);
        result
    }
}

/// Runs a map to its end.
pub fn run<T: Task>(task: T, request: &Request) -> Result<()> {
    begin(request)?.run(task)
}

/// Starts a map on a thread of the pool.
pub fn submit<T: Task>(task: T, request: &Request) -> Result<Arc<Job>> {
    let call = prepare(task, begin(request)?)?;
    let job = call.job.clone();
    job.set_driver(move || call.drive());
    let started = job.clone();
    if threading::spawn(move || started.drive()) {
        return Ok(job);
    }
    job.forget_driver();
    Err(Error::new(
        Status::ERR_BACKEND_UNAVAILABLE,
        "the system refuses to start a thread for the submitted map (RLIMIT_NPROC, or memory); pb_parallel_map works \
         without one",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_that_was_said_is_a_limit() {
        assert_eq!(most_workers(-1, 4), 0);
        assert_eq!(most_workers(-2, 3), 3);
        assert_eq!((most_workers(2, 2), most_workers(64, 1)), (2, 64));
    }
}
