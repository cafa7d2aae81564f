//! Locks whose owners may panic: what they guard is whole at every step.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock, whatever became of those who had it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
