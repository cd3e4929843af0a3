//! Lists of CPUs as Linux writes them: `0-3,8` (`cpuset(7)`, "List format", without strides).

use std::fmt;

/// CPU numbers beyond this are typing errors; the largest machines have a few thousand.
const CPU_MAX: usize = 65_535;

/// Why a list makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuListError {
    part: String,
}

impl fmt::Display for CpuListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is neither a CPU number nor an ascending range; write for example 0-3,8",
            self.part
        )
    }
}

impl std::error::Error for CpuListError {}

/// The CPUs of a list, in ascending order and each once.
///
/// # Errors
/// If a part is not a number of at most five digits or so, or an ascending range; if the list is empty.
pub fn parse(list: &str) -> Result<Vec<usize>, CpuListError> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        match (from.trim().parse::<usize>(), to.trim().parse::<usize>()) {
            (Ok(from), Ok(to)) if from <= to && to <= CPU_MAX => cpus.extend(from..=to),
            _ => {
                return Err(CpuListError {
                    part: part.to_owned(),
                });
            }
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// The shortest list of ascending CPUs.
pub fn format(cpus: &[usize]) -> String {
    let ranges = cpus.chunk_by(|before, after| before + 1 == *after);
    let parts: Vec<String> = ranges
        .map(|range| match range {
            [one] => one.to_string(),
            [first, second] => format!("{first},{second}"),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        })
        .collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        for (list, cpus) in [
            ("0", vec![0]),
            ("0,1", vec![0, 1]),
            ("0-3,8", vec![0, 1, 2, 3, 8]),
            ("2,4-6,9", vec![2, 4, 5, 6, 9]),
        ] {
            assert_eq!(parse(list).unwrap(), cpus);
            assert_eq!(format(&cpus), list);
        }
        assert_eq!(parse("3,1-2,2").unwrap(), [1, 2, 3]);
        assert_eq!(format(&[]), "");
    }

    #[test]
    fn nonsense_is_quoted() {
        for (list, part) in [
            ("", ""),
            ("0,,1", ""),
            ("0,a", "a"),
            ("3-1", "3-1"),
            ("1-2-3", "1-2-3"),
            ("99999999", "99999999"),
        ] {
            assert_eq!(
                parse(list).unwrap_err(),
                CpuListError {
                    part: part.to_owned()
                },
                "{list}"
            );
        }
    }
}
