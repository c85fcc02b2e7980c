//! Workers that end before their time: found out, killed if need be, and what they had brought to its end.

use super::call::{Call, Flight, Station};
use super::hand::Death;
use crate::job::{Chunk, Ended, Job, Loss};
use crate::message::Statuses;
use crate::process::Exit;
use crate::status::{Error, Result, Status};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a task that was asked to stop may go on.
const GRACE: Duration = Duration::from_millis(100);
/// Workers that may end one after the other before any of them has begun an item.
const FALSE_STARTS: u32 = 3;

impl Call<'_> {
    /// Asks all that runs to end early.
    pub(super) fn cancel(&mut self) {
        for station in self.stations.iter_mut().flatten() {
            if station.asked.is_none() && !station.flights.is_empty() {
                station.hand.cancel();
                station.asked = Some(Instant::now());
            }
        }
    }

    pub(super) fn look_after_workers(&mut self) -> Result<()> {
        for seat in 0..self.stations.len() {
            self.take_replies(seat)?;
            let Some(station) = &mut self.stations[seat] else { continue };
            if let Some(death) = station.hand.look() {
                self.take_replies(seat)?;
                self.mourn(seat, death)?;
                continue;
            }
            if station.flights.is_empty() {
                continue;
            }
            if station.asked.is_some_and(|asked| asked.elapsed() > GRACE) {
                self.kill(seat, None);
            } else if let Some(index) = self.late_item(seat) {
                self.kill(seat, Some(index));
            }
        }
        Ok(())
    }

    /// The item of a seat that has gone on for longer than its time and the grace.
    fn late_item(&mut self, seat: usize) -> Option<usize> {
        let timeout = self.job.timeout();
        let station = self.stations[seat].as_mut().filter(|_| timeout > 0.0)?;
        let (begun, ended) = station.hand.marks();
        let flight = station.flights.front_mut()?;
        if begun != flight.begun || begun == ended {
            (flight.begun, flight.since) = (begun, Instant::now());
            return None;
        }
        let late = flight.since.elapsed().as_secs_f64() > timeout + GRACE.as_secs_f64();
        late.then_some(flight.chunk.begin + ended)
    }

    /// Kills the worker of a seat: because it stops too late, or because `late` has taken too long.
    fn kill(&mut self, seat: usize, late: Option<usize>) {
        let Some(mut station) = self.stations[seat].take() else { return };
        let exit = station.hand.kill().unwrap_or(Exit::Unknown);
        self.executor.gone(1);
        self.false_starts = 0;
        self.settle(station, |job, index| match late {
            Some(late) if late == index => job.settle(index, Ended::Late),
            // The late item did end just before: this one had begun and is not to blame.
            Some(_) if job.rules().once_only => job.lose_item(index, &loss(&exit)),
            Some(_) => job.put_back(Chunk { begin: index, end: index + 1 }),
            // The job has stopped: the item is not finished, and that is all.
            None => {}
        });
    }

    /// Something could not be sent to a worker: because it is no more, or for a reason that ends the map.
    pub(super) fn lost_contact(&mut self, seat: usize, error: Error) -> Result<()> {
        if error.status != Status::ERR_IO {
            return Err(error);
        }
        let Some(station) = &mut self.stations[seat] else { return Ok(()) };
        let death = station.hand.look().unwrap_or(Death::HungUp);
        self.mourn(seat, death)
    }

    /// A worker has died by itself.
    fn mourn(&mut self, seat: usize, death: Death) -> Result<()> {
        let Some(mut station) = self.stations[seat].take() else { return Ok(()) };
        self.executor.gone(1);
        let loss = match death {
            Death::Unfit(error) => {
                self.settle(station, |_, _| {});
                return Err(error);
            }
            Death::Ended(exit) => loss(&exit),
            Death::HungUp => {
                station.hand.kill();
                let how = "closed the descriptor by which it hears of its caller (a task that closes all it finds?)";
                Loss { how: how.into(), exit_code: -1, signal: 0, attempts: 1 }
            }
        };
        if !station.hand.initialised {
            let message = format!("the initializer was lost: its worker process {}", loss.how);
            return Err(Error::new(Status::ERR_WORKER_LOST, message));
        }
        let was_running =
            station.flights.front().is_some_and(|_| station.hand.marks().0 > station.hand.marks().1);
        self.false_starts = if was_running || station.hand.items > 0 { 0 } else { self.false_starts + 1 };
        if self.false_starts >= FALSE_STARTS {
            let message = format!(
                "{FALSE_STARTS} worker processes in a row ended before they ran an item; the last one {}",
                loss.how
            );
            return Err(Error::new(Status::ERR_WORKER_LOST, message));
        }
        self.settle(station, |job, index| job.lose_item(index, &loss));
        Ok(())
    }

    /// Settles what a worker had that is no more: what has ended counts, what was running goes to `running`, the rest is put
    /// back.
    fn settle(&self, mut station: Station, running: impl Fn(&Arc<Job>, usize)) {
        let mut first = true;
        while let Some(flight) = station.flights.pop_front() {
            let Flight { chunk, layout, .. } = flight;
            let items = chunk.end - chunk.begin;
            let (begun, ended) = if first { station.hand.marks() } else { (0, 0) };
            let ended = ended.min(items);
            first = false;
            let done = Chunk { end: chunk.begin + ended, ..chunk };
            // Results of bytes were in its own memory, and are gone.
            let salvaged = if self.has_elements { ended } else { 0 };
            if let Some(area) = station.hand.oldest_area().filter(|_| salvaged > 0) {
                if self.outputs.is_none() {
                    let outputs = area.bytes(layout.outputs, ended * self.output_size);
                    self.job.task().store(chunk.begin, outputs, None);
                }
                let each = area.bytes(layout.statuses, ended * 4);
                let collects = self.job.collects_errors();
                self.job.salvage(done, if collects { Statuses::Each(each) } else { Statuses::AllGood });
            }
            station.hand.take();
            let once_only = self.job.rules().once_only;
            let has_run = !self.has_elements && once_only && ended == items;
            let is_running = begun > ended && ended < items;
            let lost = if has_run { done.end - 1 } else { done.end };
            if is_running || has_run {
                running(self.job, lost);
            }
            if !self.job.is_stopped() {
                if !self.has_elements && !has_run {
                    self.job.put_back(done);
                }
                self.job.put_back(Chunk { begin: done.end + usize::from(is_running), ..chunk });
            }
        }
    }
}
fn loss(exit: &Exit) -> Loss {
    let (exit_code, signal) = match exit {
        Exit::Code(code) => (*code, 0),
        Exit::Signal(signal) => (-1, *signal),
        Exit::Unknown => (-1, 0),
    };
    Loss { how: exit.to_string(), exit_code, signal, attempts: 1 }
}
