//! Refuses to be one of several processes of a job, until there are ranks.

use crate::exit::{Exit, usage};

/// What launchers set to the number of processes: torchrun, Open MPI, MPICH and Intel MPI, PMIx, MVAPICH2, and
/// `srun` for a job step. Not `SLURM_NTASKS`, which the shell of an `salloc` has too.
const SIZES: [&str; 6] = [
    "WORLD_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "PMIX_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "SLURM_STEP_NUM_TASKS",
];

/// Ends a program that a launcher started several times: each copy would do the whole work, and write the same
/// files.
///
/// # Errors
/// If one of the launchers' variables is above 1, or no number.
pub fn refuse_ranks() -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "launchers speak through the environment")]
    let variable = |name: &str| std::env::var(name);
    for name in SIZES {
        if let Some(problem) = variable(name).ok().and_then(|value| problem(name, &value)) {
            return Err(usage(Exit::Usage, problem));
        }
    }
    Ok(())
}

fn problem(name: &str, value: &str) -> Option<String> {
    let help = "this program runs as one process, on one device; start it once, without \
                torchrun, mpirun or srun -n";
    match value.trim().parse::<u64>() {
        _ if value.trim().is_empty() => None,
        Ok(0 | 1) => None,
        Ok(size) => Some(format!(
            "{name} is {size}: a launcher started {size} processes, and there are no ranks yet\n  \
             help: {help}, or unset {name}"
        )),
        Err(_not_a_number) => Some(format!(
            "{name} is {value:?}, expected a number of processes\n  help: {help}, or unset {name}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_above_one_is_another_process() {
        for fine in ["", " ", "0", "1", " 1\n"] {
            assert_eq!(problem("WORLD_SIZE", fine), None, "{fine:?}");
        }
        let help = "help: this program runs as one process, on one device; start it once, without \
                    torchrun, mpirun or srun -n, or unset PMI_SIZE";
        let expected = "PMI_SIZE is 4: a launcher started 4 processes, and there are no ranks yet";
        assert_eq!(problem("PMI_SIZE", "4"), Some(format!("{expected}\n  {help}")));
        for wrong in ["two", "-1", "99999999999999999999"] {
            let expected = format!("PMI_SIZE is {wrong:?}, expected a number of processes");
            assert_eq!(problem("PMI_SIZE", wrong), Some(format!("{expected}\n  {help}")));
        }
    }
}
