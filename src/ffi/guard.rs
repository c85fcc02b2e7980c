//! The boundary that no panic crosses, and the one place where an error becomes a status and a text.

use crate::status::{self, Error, Result, Status, pb_status};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of an export.
pub fn guard(body: impl FnOnce() -> Result<()>) -> pb_status {
    guard_status(|| body().map(|()| Status::OK))
}

/// Runs the body of an export that succeeds in more than one way.
pub fn guard_status(body: impl FnOnce() -> Result<Status>) -> pb_status {
    guard_value(|error| error.status, body).0
}

/// Runs the body of an export that returns a plain value; `otherwise` is what it returns after a failure, whose text is
/// in `pb_last_error`.
pub fn guard_value<T>(otherwise: impl FnOnce(&Error) -> T, body: impl FnOnce() -> Result<T>) -> T {
    super::fork::install();
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(bug(&*panic)));
    result.unwrap_or_else(|error| {
        let value = otherwise(&error);
        status::set_last(error);
        value
    })
}

#[cold]
#[inline(never)]
fn bug(panic: &(dyn Any + Send)) -> Error {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::new(
        Status::ERR_INTERNAL,
        format!("a bug in parallel_backend: {}; please report it", text.unwrap_or("panic without a text")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_and_a_text() {
        assert_eq!(guard(|| panic!("seven")), Status::ERR_INTERNAL.0);
        assert!(status::last().unwrap().message.contains("seven"));
        assert_eq!(guard_value(|_| -1, || Err(Error::invalid("no"))), -1);
        assert_eq!(guard(|| Ok(())), 0);
        assert_eq!(status::last().unwrap().message, "no", "success leaves the last error as it was");
    }
}
