//! A function on a thread with a stack large enough for deep recursion.

use crate::error::PipelineError;

/// candle's autograd recurses once per operation of the graph; the usual 8 MiB overflow on a deep one.
const STACK_BYTES: usize = 64 << 20;

/// Runs `f` on a thread called `name` with a stack of 64 MiB, waits for it and returns its result.
///
/// # Errors
/// [`PipelineError::Spawn`] if the thread cannot start, [`PipelineError::Panicked`] if `f` panics.
pub fn run_on_big_stack<T: Send>(
    name: &str,
    f: impl FnOnce() -> T + Send,
) -> Result<T, PipelineError> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
    std::thread::scope(|scope| {
        let thread =
            builder.spawn_scoped(scope, f).map_err(|source| PipelineError::spawn(name, source))?;
        thread.join().map_err(|payload| PipelineError::panicked(name, &*payload))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the frames; each holds a kibibyte that cannot be optimized away.
    fn recurse(depth: u32) -> u64 {
        let ballast = std::hint::black_box([u64::from(depth); 128]);
        if depth == 0 { 0 } else { recurse(depth - 1) + ballast[0] / u64::from(depth) }
    }

    #[test]
    fn a_recursion_of_more_than_the_usual_stack_fits() {
        let depth = 24 * 1024;
        assert_eq!(run_on_big_stack("deep", || recurse(depth)).unwrap(), u64::from(depth));
    }

    #[test]
    fn it_borrows_and_runs_under_its_name() {
        let local = [1, 2, 3];
        let (sum, name) = run_on_big_stack("trainer", || {
            (local.iter().sum::<i32>(), std::thread::current().name().map(str::to_owned))
        })
        .unwrap();
        assert_eq!((sum, name.as_deref()), (6, Some("trainer")));
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let error = run_on_big_stack("trainer", || -> () { panic!("loss is {}", 7) }).unwrap_err();
        assert_eq!(error.to_string(), "stage `trainer` panicked: loss is 7");
    }
}
