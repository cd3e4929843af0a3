//! Runs a server under valgrind's callgrind and counts the instructions of one phase at a time.
//!
//! 1. [`Callgrind::prepare`] compiles `io_uring_wait.c`, without which an `io_uring` executor hangs under
//!    valgrind (its head says why), and gives the words to start the server with.
//! 2. [`Callgrind::zero`] sets all counters to zero, [`Callgrind::dump`] writes them to the next file
//!    `NAME.<n>`: both from outside, through callgrind's own control program, while the server runs.
//! 3. [`Profile`] sums a dump by function.
//!
//! Instructions in the kernel are not seen. Code that the compiler has inlined counts for the function it
//! ended up in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process;
use crate::workspace::Workspace;

/// What valgrind has to be helped with.
const IO_URING_WAIT: &str = include_str!("io_uring_wait.c");
/// Under valgrind a server starts in seconds, on a loaded machine in tens of them.
pub const READY_WITHIN: Duration = Duration::from_mins(3);

/// One run of callgrind.
#[derive(Debug)]
pub struct Callgrind {
    /// Dump `n` goes to this with `.n` behind it.
    output: PathBuf,
    library: PathBuf,
    dumps: u32,
}

/// Instructions by function.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// All of them.
    pub total: u64,
    /// In the function itself; the sum over all functions is the total.
    pub exclusive: BTreeMap<String, u64>,
    /// In the function and what it calls.
    pub inclusive: BTreeMap<String, u64>,
}

impl Callgrind {
    /// Gets ready to run a server.
    ///
    /// # Errors
    /// A sentence, if valgrind or a C compiler is missing.
    pub fn prepare(workspace: &Workspace) -> Result<Self, String> {
        let version = process::output_of(Command::new("valgrind").arg("--version"));
        version.map_err(|error| format!("{error}; install valgrind"))?;
        let (source, library) = (
            workspace.join("io_uring_wait.c"),
            workspace.join("io_uring_wait.so"),
        );
        std::fs::write(&source, IO_URING_WAIT)
            .map_err(|error| format!("cannot write {}: {error}", source.display()))?;
        let mut compiler = Command::new("cc");
        compiler
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(&source)
            .arg("-ldl");
        process::output_of(&mut compiler).map_err(|error| format!("{error}; install a C compiler"))?;
        Ok(Self {
            output: workspace.join("callgrind.out"),
            library,
            dumps: 0,
        })
    }

    /// What to start the server under.
    pub fn words(&self) -> Vec<OsString> {
        let mut output = OsString::from("--callgrind-out-file=");
        output.push(&self.output);
        vec!["valgrind".into(), "--tool=callgrind".into(), output]
    }

    /// What its environment needs.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![("LD_PRELOAD".into(), self.library.clone().into_os_string())]
    }

    /// Sets all counters of the process to zero.
    ///
    /// # Errors
    /// A sentence, if callgrind does not answer.
    pub fn zero(&self, pid: u32) -> Result<(), String> {
        control("--zero", pid)
    }

    /// Writes the counters since the last call of this or of [`Callgrind::zero`], and reads them.
    ///
    /// # Errors
    /// A sentence, if callgrind does not answer, or writes something that we don't know.
    pub fn dump(&mut self, pid: u32) -> Result<Profile, String> {
        self.dumps += 1;
        control("--dump", pid)?;
        let mut file = self.output.clone().into_os_string();
        file.push(format!(".{}", self.dumps));
        Profile::read(Path::new(&file))
    }
}

/// `callgrind_control` says OK on stdout, and something else with the same exit code if it has found no
/// such process.
fn control(action: &str, pid: u32) -> Result<(), String> {
    let said = process::output_of(Command::new("callgrind_control").args([action, &pid.to_string()]))?;
    if said.contains("OK.") {
        return Ok(());
    }
    Err(format!(
        "callgrind_control {action} did not work: {}",
        said.trim()
    ))
}

impl Profile {
    fn read(file: &Path) -> Result<Self, String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("{} is no profile of callgrind: {error}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
        Self::parse(&text).map_err(|error| failed(&error))
    }

    /// Reads the format that the valgrind manual describes in "Callgrind Format Specification", with one
    /// event.
    ///
    /// A line of cost counts for the function of the last `fn=`; the one after `calls=` is the inclusive
    /// cost of calls to the function of the last `cfn=`. Calls by which a function calls itself are left
    /// out of the inclusive sums. (This is not left to `callgrind_annotate`: of a function that was running
    /// when the counters were set to zero, it takes the inclusive cost for the function's own.)
    fn parse(text: &str) -> Result<Self, String> {
        let mut names = BTreeMap::new();
        let mut profile = Self::default();
        let (mut function, mut callee) = (String::new(), String::new());
        let mut is_call_cost = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = resolve(name, &mut names)?;
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = resolve(name, &mut names)?;
            } else if line.starts_with("calls=") {
                is_call_cost = true;
            } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
                let digits = line.split(' ').nth(1).unwrap_or("0");
                let cost: u64 = digits.parse().map_err(|_| format!("no line of cost: {line}"))?;
                let is_own = !std::mem::take(&mut is_call_cost);
                if is_own {
                    profile.total += cost;
                    *profile.exclusive.entry(function.clone()).or_default() += cost;
                }
                if is_own || callee != function {
                    *profile.inclusive.entry(function.clone()).or_default() += cost;
                }
            }
        }
        if profile.total == 0 {
            return Err("it holds no instructions".to_owned());
        }
        // Functions that call each other in a ring count their common cost more than once.
        for instructions in profile.inclusive.values_mut() {
            *instructions = profile.total.min(*instructions);
        }
        Ok(profile)
    }

    /// The functions with most instructions.
    pub fn top(functions: &BTreeMap<String, u64>, count: usize) -> Vec<(&str, u64)> {
        let mut sorted: Vec<_> = functions
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        sorted.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
        sorted.truncate(count);
        sorted
    }

    /// As a JSON object with the top functions.
    pub fn to_json(&self, count: usize) -> Value {
        let list = |functions| -> Vec<Value> {
            let top = Self::top(functions, count).into_iter();
            top.map(|(function, instructions)| json!({ "function": function, "instructions": instructions }))
                .collect()
        };
        json!({
            "instructions": self.total,
            "exclusive": list(&self.exclusive),
            "inclusive": list(&self.inclusive),
        })
    }
}

/// The name behind `(id) name`, or that of an earlier `(id) name` behind `(id)`; without the `'2` of a
/// deeper recursion.
fn resolve<'text>(field: &'text str, names: &mut BTreeMap<&'text str, &'text str>) -> Result<String, String> {
    let (id, name) = field.split_once(' ').unwrap_or((field, ""));
    if !name.is_empty() {
        let recursion = name.rfind('\'').filter(|at| {
            let depth = &name[at + 1..];
            !depth.is_empty() && depth.bytes().all(|byte| byte.is_ascii_digit())
        });
        names.insert(id, &name[..recursion.unwrap_or(name.len())]);
    }
    let known = names
        .get(id)
        .ok_or_else(|| format!("function {id} has no name"))?;
    Ok((*known).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `main` was running when the counters were set to zero, so its call has the count 0.
    const DUMP: &str = "\
# callgrind format
version: 1
positions: line
events: Ir
summary: 160

ob=(1) /bin/server
fl=(1) main.rs
fn=(1) main
10 20
fi=(2) inlined.rs
+3 5
fe=(1)
cfn=(2) server::walk
calls=0 50
* 130

fn=(2)
50 30
cfn=(3) server::walk'2
calls=7 50
+1 100
-1 5
cob=(2) /lib/libc.so.6
cfi=(3) ???
cfn=(4) poll
calls=1 0
* 40

fn=(3)
60 60

ob=(2)
fl=(3)
fn=(4)
0 40

totals: 160
";

    #[test]
    fn a_dump_is_read() {
        let profile = Profile::parse(DUMP).unwrap();
        assert_eq!(profile.total, 160);
        let expected = [("main", 25), ("poll", 40), ("server::walk", 95)];
        let expected = expected.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(profile.exclusive, BTreeMap::from(expected));
        assert_eq!(profile.inclusive["main"], 155);
        assert_eq!(profile.inclusive["server::walk"], 135);
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        for text in ["", "fn=(1)\n0 1\n", "fn=(1) main\n0 one\n"] {
            assert!(Profile::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_top_is_sorted() {
        let functions = [("b", 2), ("a", 2), ("c", 9)].map(|(name, count)| (name.to_owned(), count));
        let functions = BTreeMap::from(functions);
        assert_eq!(Profile::top(&functions, 2), [("c", 9), ("a", 2)]);
    }
}
