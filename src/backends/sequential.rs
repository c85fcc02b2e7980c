//! `sequential`: a plain loop on the calling thread.

use super::{Backend, OpenRequest, Session, parse_params};
use crate::job::Job;
use crate::status::Result;
use std::sync::Arc;

/// The backend `sequential`.
#[derive(Debug)]
pub struct Sequential;

impl Backend for Sequential {
    fn shares_memory(&self) -> bool {
        true
    }

    fn open(&self, request: &OpenRequest) -> Result<Box<dyn Session>> {
        parse_params("sequential", request.params, &[])?;
        Ok(Box::new(Sequential))
    }
}

impl Session for Sequential {
    fn is_steady(&self) -> bool {
        true
    }

    fn effective_n_jobs(&self, _n_jobs: i32) -> Result<i32> {
        Ok(1)
    }

    fn run(&self, job: &Arc<Job>) -> Result<()> {
        job.work_lone();
        Ok(())
    }
}
