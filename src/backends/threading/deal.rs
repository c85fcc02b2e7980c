//! Maps in which each worker has one item: the items are dealt, one to each idle thread that is awake.
//!
//! Who is given an item claims neither it nor a seat, and its result comes back with the errand: a helper waits for the lines
//! that say what it runs, and for no other.

use super::cell::{Handed, Visits};
use super::pool;
use crate::job::Job;
use std::sync::Arc;

/// Runs a job in which each worker has one item, of two items at least: None if no thread is awake, nothing has run then.
pub(super) fn deal_all(job: &Arc<Job>) -> Option<Visits> {
    let visits = deal(job, job.n_jobs())?;
    job.was_dealt();
    Some(visits)
}

/// Runs the first `items` items, two at least, of a job in which each worker has one: the last goes to a thread that is awake, and
/// so on down to the first, which is the caller's. None if no thread is awake: nothing has run.
fn deal(job: &Arc<Job>, items: usize) -> Option<Visits> {
    let (last, shared) = (items - 1, &**job);
    let mut others = Visits::None;
    let run = move |own| shared.run_dealt(last, own);
    let this = match pool::hand(job.clone(), run, || others = deal_rest(job, last)) {
        Handed::Nobody => return None,
        Handed::Back(own) => {
            job.take_back(run(own).0);
            Visits::None
        }
        Handed::Done(succeeded) => {
            job.take_back(succeeded);
            Visits::Some
        }
        Handed::Abandoned => Visits::Abandoned,
    };
    Some(this.and(others))
}

/// The same for what is left. When no thread is awake any more, it is lent as any other work.
fn deal_rest(job: &Arc<Job>, items: usize) -> Visits {
    if items == 1 {
        job.take_back(job.run_dealt(0, job.clone()).0);
        return Visits::None;
    }
    deal(job, items).unwrap_or_else(|| {
        job.deal_from(items);
        lend(job, items)
    })
}

/// Lends the job to as many threads as there are workers besides the caller's, who claim what they run.
pub(super) fn lend(job: &Arc<Job>, workers: usize) -> Visits {
    pool::lend(workers - 1, move |slot| job.work(slot + 1), || job.work(0))
}
