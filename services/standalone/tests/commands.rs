//! The commands of `chatchit` on the embedded engine, as an operator runs them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A folder with nothing in it and an environment with nothing else.
fn chatchit(folder: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatchit"));
    command.args(arguments).env_clear().current_dir(folder).env("DATA_DIR", folder.path().join("data"));
    command
}

fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    chatchit(folder, arguments).output().expect("started")
}

fn import(folder: &TempDir, lines: &str) -> Output {
    let mut child = chatchit(folder, &["import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("taken");
    child.wait_with_output().expect("ended")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

const ANN: &str = "01890000-0000-7000-8000-00000000000a";
const BOB: &str = "01890000-0000-7000-8000-00000000000b";
const ROOM: &str = "01890000-0000-7000-8000-0000000000ff";

fn user(id: &str, email: &str) -> String {
    format!("{{\"user\":{{\"id\":\"{id}\",\"email\":\"{email}\"}}}}\n")
}

fn room(members: &[&str]) -> String {
    let members: Vec<String> = members.iter().map(|id| format!("\"{id}\"")).collect();
    format!("{{\"room\":{{\"id\":\"{ROOM}\",\"memberIds\":[{}]}}}}\n", members.join(","))
}

#[test]
fn seeding_twice_prints_the_same_lines_and_makes_nothing_new() {
    let folder = folder();
    let arguments = ["seed", "--users", "30", "--rooms", "4", "--members", "10", "--prefix", "t"];
    let (first, second) = (run(&folder, &arguments), run(&folder, &arguments));
    assert!(first.status.success(), "{}", stderr(&first));
    assert_eq!(stdout(&first), stdout(&second));
    assert!(stdout(&first).starts_with("{\"user\":{\"") && stdout(&first).contains("\"t-1@example.com\""));
    assert_eq!(stdout(&first).lines().count(), 34);
    assert!(stderr(&first).contains("30 users (30 new) and 4 rooms (4 new)"), "{}", stderr(&first));
    assert!(stderr(&second).contains("30 users (0 new) and 4 rooms (0 new)"), "{}", stderr(&second));
}

#[test]
fn seeded_rooms_have_the_history_that_was_asked_for() {
    let folder = folder();
    let arguments = ["seed", "--users", "3", "--rooms", "2", "--members", "3", "--messages", "21"];
    let (first, second) = (run(&folder, &arguments), run(&folder, &arguments));
    assert!(stderr(&first).contains("2 rooms (2 new), 21 messages in them new"), "{}", stderr(&first));
    assert!(stderr(&second).contains("2 rooms (0 new), 0 messages in them new"), "{}", stderr(&second));
}

#[test]
fn what_seed_printed_can_be_imported_elsewhere() {
    let (here, there) = (folder(), folder());
    let printed = stdout(&run(&here, &["seed", "--users", "5", "--rooms", "2", "--members", "3"]));
    let imported = import(&there, &printed);
    assert!(imported.status.success(), "{}", stderr(&imported));
    assert!(stderr(&imported).contains("5 users (5 new) and 2 rooms (2 new)"), "{}", stderr(&imported));
}

#[test]
fn an_import_can_be_repeated_without_doubling() {
    let folder = folder();
    let lines = user(ANN, "ann@example.com") + &user(BOB, "bob@example.com") + &room(&[ANN, BOB]);
    assert!(stderr(&import(&folder, &lines)).contains("2 users (2 new) and 1 rooms (1 new)"));
    let again = import(&folder, &lines);
    assert!(again.status.success() && stderr(&again).contains("2 users (0 new) and 1 rooms (0 new)"));
}

#[test]
fn one_bad_line_is_told_by_number_and_nothing_is_applied() {
    let folder = folder();
    let bad =
        import(&folder, &(user(ANN, "ann@example.com") + "{\"user\":{\"id\":\"x\"}}\n" + &user(BOB, "b@example.com")));
    assert_eq!(bad.status.code(), Some(2));
    assert!(stderr(&bad).contains("line 2: id: must be a UUID"), "{}", stderr(&bad));
    let good = import(&folder, &user(ANN, "ann@example.com"));
    assert!(stderr(&good).contains("1 users (1 new)"), "Ann was not there yet: {}", stderr(&good));
}

#[test]
fn members_must_be_in_the_lines_or_in_the_store() {
    let folder = folder();
    let unknown = import(&folder, &(user(ANN, "ann@example.com") + &room(&[ANN, BOB])));
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains(&format!("line 2: memberIds: there is no user {BOB}")), "{}", stderr(&unknown));
    assert!(import(&folder, &user(BOB, "bob@example.com")).status.success());
    let known = import(&folder, &(user(ANN, "ann@example.com") + &room(&[ANN, BOB])));
    assert!(known.status.success(), "{}", stderr(&known));
}

#[test]
fn an_address_of_somebody_else_is_a_bad_line() {
    let folder = folder();
    assert!(import(&folder, &user(ANN, "ann@example.com")).status.success());
    let taken = import(&folder, &(user(ROOM, "new@example.com") + &user(BOB, "Ann@Example.com")));
    assert_eq!(taken.status.code(), Some(2));
    assert!(stderr(&taken).contains("line 2: email: belongs to another user"), "{}", stderr(&taken));
}

#[test]
fn passwords_are_hashed_once_for_all_who_share_one() {
    let folder = folder();
    let started = Instant::now();
    let seeded = run(&folder, &["seed", "--users", "1000", "--password", "correct horse"]);
    assert!(seeded.status.success(), "{}", stderr(&seeded));
    assert!(started.elapsed() < Duration::from_secs(20), "a thousand hashes would take minutes");
    assert!(!stdout(&seeded).contains("horse") && !stderr(&seeded).contains("horse"));
}

#[test]
fn wrong_arguments_end_with_code_2() {
    let folder = folder();
    for arguments in [
        &["seed"][..],
        &["seed", "--users", "2", "--rooms", "1", "--members", "3"],
        &["seed", "--users", "2", "--prefix", "a b"],
        &["seed", "--users", "2", "--password", "short"],
        &["import"],
        &["import", "no-such-file"],
        &["dance"],
    ] {
        let output = run(&folder, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    }
    assert!(!folder.path().join("data").exists(), "nothing was opened");
}

#[test]
fn checkconfig_tells_every_problem_and_starts_nothing() {
    let folder = folder();
    let fine = run(&folder, &["checkconfig"]);
    assert!(fine.status.success() && stdout(&fine).contains("The configuration is fine"), "{}", stderr(&fine));
    let wrong = chatchit(&folder, &["checkconfig", "--for", "gateway"]).env("PORT", "x").output().expect("started");
    assert_eq!(wrong.status.code(), Some(2));
    let told = stderr(&wrong);
    let names: Vec<&str> = told.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(names, ["PORT", "DATABASE_URL", "REDIS_URL", "RABBITMQ_URL", "JWT_ACCESS_TOKEN", "HMAC_KEYS"], "{told}");
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_wrong_setting_stops_the_server_before_it_does_anything() {
    let folder = folder();
    let output = chatchit(&folder, &[]).env("REDIS_URL", "redis://localhost").output().expect("started");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output).lines().count(), 2, "DATABASE_URL and RABBITMQ_URL: {}", stderr(&output));
    assert!(!folder.path().join("data").exists());
}

#[test]
fn unreachable_dependencies_are_told_by_name_and_end_with_code_2() {
    let folder = folder();
    let output = chatchit(&folder, &[])
        .env("DATABASE_URL", "postgres://chat:hush@127.0.0.1:1/chat")
        .env("REDIS_URL", "redis://:hush@127.0.0.1:1")
        .env("RABBITMQ_URL", "amqp://chat:hush@127.0.0.1:1")
        .env("STARTUP_WAIT", "0s")
        .env("RUST_LOG", "off")
        .output()
        .expect("started");
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    for name in ["DATABASE_URL", "REDIS_URL", "RABBITMQ_URL"] {
        assert_eq!(told.lines().filter(|line| line.starts_with(name)).count(), 1, "{told}");
    }
    assert!(!told.contains("hush"), "{told}");
}

#[test]
fn env_files_count_outside_production_only() {
    let folder = folder();
    std::fs::write(folder.path().join(".env"), "PORT=nonsense\n").expect("written");
    assert_eq!(run(&folder, &["checkconfig"]).status.code(), Some(2));
    let production = chatchit(&folder, &["checkconfig"]).env("APP_ENV", "production").output().expect("started");
    assert!(production.status.success(), "{}", stderr(&production));
}

#[test]
fn migrating_makes_the_tables_and_ends() {
    let folder = folder();
    let output = run(&folder, &["migrate"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(Path::new(&folder.path().join("data/chat.db")).exists());
}

/// A server on a free port; ended on drop.
struct Server(Child);

impl Server {
    /// Started, and its first lines read: it listens.
    fn start(folder: &TempDir) -> (Self, String) {
        let mut child = chatchit(folder, &["serve"])
            .env("PORT", "0")
            .env("HOST", "127.0.0.1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let banner: Vec<String> = lines.take_while(|line| !line.contains("Ctrl-C")).collect();
        (Self(child), banner.join("\n"))
    }

    fn terminate(mut self) -> ExitStatus {
        let pid = self.0.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("sent");
        self.0.wait().expect("ended")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_says_where_to_click_and_ends_well() {
    let folder = folder();
    let (server, banner) = Server::start(&folder);
    assert!(banner.starts_with("ChatChit is running on the embedded engine"), "{banner}");
    assert!(banner.contains("Click   http://127.0.0.1:") && banner.contains("curl -s http://127.0.0.1:"), "{banner}");
    assert!(server.terminate().success());
}

#[test]
fn one_server_at_a_time_on_a_data_folder_but_seeding_works_beside_it() {
    let folder = folder();
    let (server, _) = Server::start(&folder);
    let second = chatchit(&folder, &[]).env("PORT", "0").output().expect("started");
    assert_eq!(second.status.code(), Some(2));
    assert!(stderr(&second).starts_with("DATA_DIR: ") && stderr(&second).contains("in use"), "{}", stderr(&second));
    let seeded = run(&folder, &["seed", "--users", "50", "--rooms", "5", "--members", "10"]);
    assert!(stderr(&seeded).contains("50 users (50 new)"), "{}", stderr(&seeded));
    assert!(server.terminate().success());
}

#[test]
fn a_port_in_use_is_told_by_name() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = chatchit(&folder, &[]).env("PORT", &port).env("HOST", "127.0.0.1").output().expect("started");
    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    assert!(told.lines().any(|line| line.starts_with("PORT: cannot listen on 127.0.0.1:")), "{told}");
}

#[test]
fn the_check_says_where_secrets_come_from_and_that_data_needs_a_folder() {
    let folder = folder();
    let fine = run(&folder, &["checkconfig"]);
    let text = stdout(&fine);
    assert!(text.contains("made at first start") && text.contains("7d") && text.contains("TRUSTED_PROXIES"), "{text}");
    assert!(!text.contains("QUEUE_SHARDS"), "the embedded engine has one queue: {text}");
    std::fs::write(folder.path().join("data"), "a file").expect("written");
    let refused = run(&folder, &["checkconfig"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).starts_with("DATA_DIR: ") && stderr(&refused).contains("is no folder"));
}

#[test]
fn the_format_of_an_import_is_told_and_other_fields_are_ignored() {
    let folder = folder();
    let help = stdout(&run(&folder, &["import", "--help"]));
    assert!(help.contains("\"memberIds\"") && help.contains("The first member is the owner"), "{help}");
    let line = format!("{{\"user\":{{\"id\":\"{ANN}\",\"nick\":\"x\"}},\"more\":1}}");
    let taken = import(&folder, &(user(BOB, "bob@example.com") + &line));
    assert!(taken.status.success(), "{}", stderr(&taken));
}

#[test]
fn an_account_is_blocked_and_unblocked_by_address_or_id() {
    let folder = folder();
    assert!(import(&folder, &user(ANN, "ann@example.com")).status.success());
    let blocked = run(&folder, &["admin", "block", "Ann@Example.com"]);
    assert!(blocked.status.success(), "{}", stderr(&blocked));
    let line = stdout(&blocked);
    assert!(line.contains(ANN) && line.contains("\"blocked\":true") && line.lines().count() == 1, "{line}");
    assert!(stdout(&run(&folder, &["admin", "unblock", ANN])).contains("\"blocked\":false"));
    assert!(run(&folder, &["admin", "signout", ANN]).status.success());
    for unknown in [BOB, "bob@example.com", "nonsense"] {
        let refused = run(&folder, &["admin", "block", unknown]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains(&format!("there is no user {unknown}")), "{}", stderr(&refused));
    }
}

#[test]
fn an_account_is_made_an_admin_and_no_more() {
    let folder = folder();
    assert!(import(&folder, &user(ANN, "ann@example.com")).status.success());
    assert!(stdout(&run(&folder, &["admin", "grant", "ann@example.com"])).contains("\"role\":\"admin\""));
    assert!(stdout(&run(&folder, &["admin", "signout", ANN])).contains("\"role\":\"admin\""), "it is another matter");
    assert!(stdout(&run(&folder, &["admin", "revoke", ANN])).contains("\"role\":\"user\""));
    assert_eq!(run(&folder, &["admin", "grant", BOB]).status.code(), Some(2));
}

#[test]
fn where_nothing_was_ever_given_up_there_are_no_dead_letters() {
    let folder = folder();
    assert!(run(&folder, &["migrate"]).status.success());
    for (arguments, told) in [
        (&["list"][..], "0 dead letters"),
        (&["list", "--json", "--cause", "panic", "--limit", "3"], "0 dead letters"),
        (&["replay", "x", "y"], "0 dead letters replayed"),
        (&["drop", "--cause", "panic"], "0 dead letters dropped"),
        (&["drop", "--all"], "0 dead letters dropped"),
    ] {
        let output = run(&folder, &[&["deadletters"], arguments].concat());
        assert_eq!((output.status.code(), stdout(&output)), (Some(0), String::new()), "{}", stderr(&output));
        assert!(stderr(&output).contains(told), "{arguments:?}: {}", stderr(&output));
    }
    let output = run(&folder, &["deadletters", "show", "x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("there is no dead letter x"), "{}", stderr(&output));
}

#[test]
fn dead_letters_are_named_in_one_way_at_a_time() {
    let folder = folder();
    for arguments in [
        &["replay"][..],
        &["drop", "x", "--all"],
        &["drop", "--cause", "panic", "--all"],
        &["drop", "--cause", "dance"],
        &["list", "--limit", "0"],
        &["list", "--after", "x"],
        &["show"],
        &["bury"],
    ] {
        let output = run(&folder, &[&["deadletters"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    }
    assert!(!folder.path().join("data").exists(), "nothing was opened");
}
