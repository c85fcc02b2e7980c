//! Maps in which each worker has one item: the items are dealt, one to each idle thread that is awake.
//!
//! Who is given an item claims neither it nor a seat, and its result comes back with the errand: a helper waits for the lines
//! that say what it runs, and for no other.

use super::cell::{Deal, Handed, Parcel, Visits};
use super::pool;
use crate::job::Job;
use std::sync::Arc;

impl Deal for Job {
    fn run_part(&self, number: usize, own: Arc<Self>) -> (bool, Option<Arc<Self>>) {
        self.run_dealt(number, own)
    }
}

/// One for each worker but the caller: what a job keeps for the next time that it is dealt.
type Parcels = Vec<Parcel<Job>>;

/// Runs a job in which each worker has one item, of two items at least: None if no thread is awake, nothing has run then.
pub(super) fn deal_all(job: &Arc<Job>) -> Option<Visits> {
    let parcels: &Parcels = job.kept(|| (1..job.n_jobs()).map(|_| Parcel::new()).collect())?;
    let visits = deal(job, parcels)?;
    if visits == Visits::Some {
        job.was_dealt();
    }
    Some(visits)
}

/// Runs the first items of a job in which each worker has one: the last of them goes in the last parcel to a thread that is awake,
/// and so on down to the first, which is the caller's. None if no thread is awake: nothing has run.
fn deal(job: &Arc<Job>, parcels: &[Parcel<Job>]) -> Option<Visits> {
    let (parcel, rest) = parcels.split_last()?;
    let (number, mut others) = (parcels.len(), Visits::None);
    let this = match pool::hand(parcel, job.clone(), number, || others = deal_rest(job, rest)) {
        Handed::Nobody => return None,
        Handed::Back(own) => {
            job.take_back(job.run_dealt(number, own).0);
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
fn deal_rest(job: &Arc<Job>, parcels: &[Parcel<Job>]) -> Visits {
    let items = parcels.len() + 1;
    if items == 1 {
        job.take_back(job.run_dealt(0, job.clone()).0);
        return Visits::None;
    }
    deal(job, parcels).unwrap_or_else(|| {
        job.deal_from(items);
        lend(job, items)
    })
}

/// Lends the job to as many threads as there are workers besides the caller's, who claim what they run.
pub(super) fn lend(job: &Arc<Job>, workers: usize) -> Visits {
    pool::lend(workers - 1, move |slot| job.work(slot + 1), || job.work(0))
}
