//! Section 8 of the header: life.

use super::guard::guard;
use crate::backends::threading;
use crate::registry;
use crate::shared;
use crate::status::pb_status;

/// Ends idle threads and worker processes, and sessions that no scope opened, and gives back memory that is kept warm for
/// results; the next call starts them again. Tasks that run are not disturbed: their threads end after them. A timeline that is
/// being recorded is written as far as it has come, and goes on. May be called at any time and any number of times. Errors:
/// PB_ERR_IO where the timeline cannot be written; the rest is done then.
#[unsafe(no_mangle)]
pub extern "C" fn pb_shutdown() -> pb_status {
    guard(|| {
        registry::close_implicit();
        threading::shutdown();
        #[cfg(target_os = "linux")]
        crate::backends::loky::shutdown();
        shared::release_all();
        super::trace::flush()
    })
}
