//! `ostrakon check`: all that is wrong with a data directory, while no node runs on it.
//!
//! The directory's lock is held to the end. Logs and manifests are looked at on one core, tables on all. What is found
//! is printed at once; a bar on stderr tells how far it is.

use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use indicatif::{HumanBytes, HumanCount};
use serde_json::{Map, Value, json};

use super::arguments::CheckArguments;
use super::failure::Failure;
use super::key::escape;
use super::transfer::Progress;
use super::{Outcome, output};
use crate::env::Env;
use crate::env::glommio::runtime::{self, RuntimeConfig};
use crate::process::lock::{DirectoryLock, LockError};
use crate::process::preflight;
use crate::process::preflight::machine::allowed_cpus;
use crate::server::check::{Damage, Loss, Plan, Told, Totals, check_node, check_tables, table_bytes};
use crate::storage::store::keys::users_key;

/// What the cores tell the thread that prints.
enum Message {
    /// So many bytes are to be read besides logs and manifests.
    ToRead(u64),
    Told(Told),
    /// What the first core leaves to do.
    Planned(Plan),
    /// What one of the others has looked at.
    Looked(Totals),
    Failed(String),
}

/// Checks a data directory.
pub(super) fn check(arguments: &CheckArguments) -> Result<Outcome, Failure> {
    let data = &arguments.data;
    if !data.is_dir() {
        return Err(Failure::Failed(format!(
            "there is no directory {}; name the data directory with --data",
            data.display()
        )));
    }
    preflight::raise_limits();
    let _lock = DirectoryLock::acquire(data).map_err(|error| match error {
        LockError::Held { .. } => {
            Failure::Failed(format!("{error}; only a node that does not run can be checked"))
        }
        error => Failure::Failed(error.to_string()),
    })?;
    let mut printer = Printer {
        is_json: arguments.json,
        progress: None,
        started: Instant::now(),
        read_bytes: 0,
        damages: 0,
        totals: Totals::default(),
    };
    let plan = Arc::new(look_at_node(data, &mut printer)?);
    look_at_tables(data, &plan, &mut printer)?;
    printer.summary()?;
    Ok(if printer.damages == 0 {
        Outcome::Done
    } else {
        Outcome::FoundErrors
    })
}

/// Runs `main` on so many cores, and prints what they tell; hands on the rest.
fn run<F, Fut>(
    data: &Path,
    cores: u16,
    main: F,
    messages: &mpsc::Receiver<Message>,
    mut hear: impl FnMut(Message) -> Result<(), Failure>,
) -> Result<(), Failure>
where
    F: Fn(Env<()>) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let cores = runtime::start(RuntimeConfig::new(cores, data), main);
    let cores = cores.map_err(|error| Failure::Failed(error.to_string()))?;
    // It ends when the last core has dropped its sender.
    for message in messages {
        hear(message)?;
    }
    cores.join().map_err(|error| Failure::Failed(error.to_string()))
}

/// All but the tables.
fn look_at_node(data: &Path, printer: &mut Printer) -> Result<Plan, Failure> {
    let (sender, messages) = mpsc::channel();
    let directory = data.to_owned();
    let main = move |env: Env<()>| {
        let (sender, data) = (sender.clone(), directory.clone());
        async move {
            // It fails only if nobody reads what is printed any more.
            let tell = |message| drop(sender.send(message));
            let look = async {
                tell(Message::ToRead(table_bytes(&*env.disk, &data).await?));
                let seams = (&*env.disk, &*env.tasks);
                check_node(seams, &data, &|told| tell(Message::Told(told))).await
            };
            tell(look.await.map_or_else(Message::Failed, Message::Planned));
        }
    };
    let mut planned = None;
    run(data, 1, main, &messages, |message| {
        match message {
            Message::ToRead(bytes) => printer.progress = Some(Progress::new("checking", Some(bytes))),
            Message::Told(told) => {
                if let (Told::Read(bytes), Some(progress)) = (&told, &printer.progress) {
                    progress.bar().inc_length(*bytes);
                }
                printer.told(told)?;
            }
            Message::Planned(plan) => planned = Some(plan),
            Message::Failed(sentence) => return Err(Failure::Failed(sentence)),
            Message::Looked(_) => {}
        }
        Ok(())
    })?;
    let plan = planned.ok_or_else(|| Failure::Failed("the check ended before its end".to_owned()))?;
    printer.totals.add(&plan.totals);
    Ok(plan)
}

/// The tables, on as many cores as there is work for.
fn look_at_tables(data: &Path, plan: &Arc<Plan>, printer: &mut Printer) -> Result<(), Failure> {
    let cores = allowed_cpus().len().min(plan.tables.len());
    if cores == 0 {
        return Ok(());
    }
    let (sender, messages) = mpsc::channel();
    let plan = Arc::clone(plan);
    let main = move |env: Env<()>| {
        let (sender, plan) = (sender.clone(), Arc::clone(&plan));
        async move {
            let own = plan.tables.iter().skip(usize::from(env.core.0));
            let own: Vec<_> = own.step_by(usize::from(env.cores)).cloned().collect();
            let tell = |told| drop(sender.send(Message::Told(told)));
            let (disk, tasks, clock) = (Rc::clone(&env.disk), Rc::clone(&env.tasks), Rc::clone(&env.clock));
            let totals = check_tables(&disk, &tasks, &clock, &own, &tell).await;
            drop(sender.send(Message::Looked(totals)));
        }
    };
    run(data, cores as u16, main, &messages, |message| {
        match message {
            Message::Told(told) => printer.told(told)?,
            Message::Looked(totals) => printer.totals.add(&totals),
            Message::ToRead(_) | Message::Planned(_) | Message::Failed(_) => {}
        }
        Ok(())
    })
}

struct Printer {
    is_json: bool,
    progress: Option<Progress>,
    started: Instant,
    read_bytes: u64,
    damages: u64,
    totals: Totals,
}

impl Printer {
    fn told(&mut self, told: Told) -> Result<(), Failure> {
        match told {
            Told::Read(bytes) => {
                self.read_bytes += bytes;
                if let Some(progress) = &self.progress {
                    progress.bar().inc(bytes);
                }
                Ok(())
            }
            Told::Damage(damage) => {
                self.damages += 1;
                self.print(&damage_text(&damage), &damage_json(&damage))
            }
            Told::Leftover { path, what } => self.print(
                &format!(
                    "leftover  {}\n  found    {what}; the next start removes it\n",
                    path.display()
                ),
                &json!({"kind": "leftover", "file": path.to_string_lossy(), "found": what}),
            ),
            Told::Torn { path, offset, what } => self.print(
                &format!(
                    "torn end  {}, offset {offset}\n  found    {what}\n  lost     nothing that was acknowledged, \
                     as far as can be told\n",
                    path.display()
                ),
                &json!({"kind": "torn", "file": path.to_string_lossy(), "offset": offset, "found": what}),
            ),
        }
    }

    /// Prints in between what the bar draws.
    fn print(&self, text: &str, json: &Value) -> Result<(), Failure> {
        let print = || {
            if self.is_json {
                output::json_line(json)
            } else {
                output::text(text)
            }
        };
        match &self.progress {
            Some(progress) => progress.bar().suspend(print),
            None => print(),
        }
    }

    fn summary(&mut self) -> Result<(), Failure> {
        self.progress = None;
        let Totals {
            files,
            segments,
            entries,
            tables,
            blocks,
            keys,
            versions,
        } = self.totals;
        if self.is_json {
            return output::json_line(&json!({
                "kind": "summary", "damages": self.damages, "files": files, "bytes": self.read_bytes,
                "segments": segments, "entries": entries, "tables": tables, "blocks": blocks, "keys": keys,
                "versions": versions,
            }));
        }
        let conclusion = match self.damages {
            0 => "no damage".to_owned(),
            1 => "1 place is damaged".to_owned(),
            damages => format!("{} places are damaged", HumanCount(damages)),
        };
        output::text(&format!(
            "checked {} files, {}, in {:.1} s\n  logs     {} segments, {} entries that are in no table\n  tables   {} \
             with {} blocks, {} keys, {} versions\n{conclusion}\n",
            HumanCount(files),
            HumanBytes(self.read_bytes),
            self.started.elapsed().as_secs_f64(),
            HumanCount(segments),
            HumanCount(entries),
            HumanCount(tables),
            HumanCount(blocks),
            HumanCount(keys),
            HumanCount(versions),
        ))
    }
}

fn damage_text(damage: &Damage) -> String {
    let place = match (damage.offset, damage.bytes) {
        (None, _) => String::new(),
        (Some(offset), 0) => format!(", offset {offset}"),
        (Some(offset), bytes) => format!(", offset {offset}, {bytes} bytes"),
    };
    let (lost, todo) = consequence(&damage.lost);
    format!(
        "damage    {}{place}\n  found    {}\n  lost     {lost}\n  to do    {todo}\n",
        damage.path.display(),
        damage.what
    )
}

fn damage_json(damage: &Damage) -> Value {
    let (lost, todo) = consequence(&damage.lost);
    let mut object = Map::new();
    object.insert("kind".to_owned(), "damage".into());
    object.insert("file".to_owned(), damage.path.to_string_lossy().into());
    if let Some(offset) = damage.offset {
        object.insert("offset".to_owned(), offset.into());
        object.insert("bytes".to_owned(), damage.bytes.into());
    }
    object.insert("found".to_owned(), damage.what.as_str().into());
    object.insert("lost".to_owned(), lost.into());
    object.insert("to_do".to_owned(), todo.into());
    if let Loss::Keys(_, from, through) = &damage.lost {
        for (name, key) in [("from", from.as_ref()), ("through", Some(through))] {
            if let Some(key) = key.and_then(|key| users_key(key)) {
                output::insert_bytes(&mut object, name, key);
            }
        }
    }
    Value::Object(object)
}

/// What is lost by a damage, and what to do.
fn consequence(lost: &Loss) -> (String, &'static str) {
    match lost {
        Loss::Nothing => (
            "nothing that was stored".to_owned(),
            "nothing at once; but the device or a program has changed bytes that nobody wrote",
        ),
        Loss::Keys(shard, from, through) => (
            format!(
                "versions in shard {} of keys from {} to {}; requests for them fail with Unreadable",
                shard.0,
                from.as_ref()
                    .map_or_else(|| "the first of the table".to_owned(), |key| key_text(key)),
                key_text(through)
            ),
            "restore the file from a copy of this data directory, or write these keys anew",
        ),
        Loss::Table(shard) => (
            format!(
                "all of the table; the node does not start, because of shard {}",
                shard.0
            ),
            "restore the file from a copy of this data directory",
        ),
        Loss::Shard(shard) => (
            format!("the node does not start, because of shard {}", shard.0),
            "restore the directory of the shard and the logs from one copy of this data directory",
        ),
        Loss::Log(shards) => (
            if shards.is_empty() {
                "any shard of this log may have lost acknowledged writes; the node does not start".to_owned()
            } else {
                let shards: Vec<String> = shards.iter().map(|shard| shard.0.to_string()).collect();
                format!(
                    "shards {} may have lost acknowledged writes; the node does not start",
                    shards.join(", ")
                )
            },
            "restore the file from a copy of the disk; to give up everything in this log from there on, start with \
             --cut-corrupt-log",
        ),
        Loss::Node => (
            "the node does not start".to_owned(),
            "restore the file from a copy of this data directory",
        ),
    }
}

/// A key of tables: a user's in the form in which the shell takes it.
fn key_text(stored: &[u8]) -> String {
    users_key(stored).map_or_else(|| "what the shard keeps for itself".to_owned(), escape)
}
