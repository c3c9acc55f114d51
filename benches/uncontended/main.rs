//! What a lock costs without contention, on each backend: pglock beside the barest
//! messages sent by hand, and the usual code.
//!
//! ```text
//! scripts/with-postgres cargo bench --bench uncontended
//! ```
//!
//! Criterion measures one variant after the other, on a local socket; a name after `--` selects some, such
//! as `-- diesel`. Without a name the tables follow: for these the variants take turns, over networks too.

mod operations;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use criterion::Criterion;
use diesel::Connection;
use diesel::pg::PgConnection;
use diesel::r2d2::ConnectionManager;
use operations::{
    BARE, BY_HAND, ONE_BY_ONE, Operations, PGLOCK, SESSION, SEVERAL, TIMED, TRANSACTION, UNTIMED,
    USUAL, operations,
};
use pglock::{LockBackend, QueuedPool};
use postgres::{Client, Config, NoTls};
use r2d2_postgres::PostgresConnectionManager;
use support::by_hand::Driver;
use support::proxy::{self, Proxy};
use support::server::{Busy, Cpu};
use support::table::Table;
use support::{Bound, Variant, measures, median, pool, ratio, server_cpu, take_turns, verdict};

/// How much longer a round trip takes than on the socket, and how often to measure.
const NETWORKS: [(Duration, usize, u32); 3] = [
    (Duration::ZERO, 400, 10),
    (Duration::from_micros(500), 40, 2),
    (Duration::from_millis(2), 40, 1),
];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    let networks = NETWORKS.map(|(delay, rounds, repeat)| {
        let proxy = Proxy::with_delay(delay);
        Network {
            way: if delay.is_zero() {
                Way::direct()
            } else {
                Way::through(&proxy)
            },
            proxy,
            rounds: if measures() { rounds } else { 1 },
            repeat,
        }
    });
    machine(&mut proxy::server().connect(NoTls).unwrap());
    let mut bench = Bench {
        criterion: &mut criterion,
        networks: &networks,
        tables: std::env::args()
            .skip(1)
            .all(|argument| argument == "--bench"),
    };
    bench.backend("postgres", |way| way.config.connect(NoTls).unwrap());
    bench.backend("diesel", |way| PgConnection::establish(&way.url).unwrap());
    bench.backend("r2d2-postgres", |way| pool(way.postgres(), 1));
    bench.backend("r2d2-diesel", |way| pool(way.diesel(), 1));
    bench.backend("queued-postgres", |way| {
        QueuedPool::new(pool(way.postgres(), 1))
    });
    bench.backend("queued-diesel", |way| {
        QueuedPool::new(pool(way.diesel(), 1))
    });
    criterion.final_summary();
}

/// Prints where this is measured.
fn machine(client: &mut Client) {
    let mut table = Table::new("machine", &["machine", ""]);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    table.row(["cores".to_owned(), cores.to_string()]);
    let server: String = client.query_one("SHOW server_version", &[]).unwrap().get(0);
    table.row(["PostgreSQL".to_owned(), server]);
    table.finish();
}

struct Network {
    proxy: Proxy,
    way: Way,
    rounds: usize,
    repeat: u32,
}

/// How a driver gets to the server.
struct Way {
    config: Config,
    url: String,
}

impl Way {
    fn direct() -> Self {
        Self {
            config: proxy::server(),
            url: std::env::var("DATABASE_URL").expect("run under scripts/with-postgres"),
        }
    }

    fn through(proxy: &Proxy) -> Self {
        Self {
            config: proxy.config(),
            url: proxy.url(),
        }
    }

    fn postgres(&self) -> PostgresConnectionManager<NoTls> {
        PostgresConnectionManager::new(self.config.clone(), NoTls)
    }

    fn diesel(&self) -> ConnectionManager<PgConnection> {
        ConnectionManager::new(&self.url)
    }
}

struct Bench<'b> {
    criterion: &'b mut Criterion,
    networks: &'b [Network],
    tables: bool,
}

impl Bench<'_> {
    fn backend<B>(&mut self, name: &str, connect: impl Fn(&Way) -> B)
    where
        B: LockBackend<Session: Driver> + 'static,
    {
        let mut operations = operations::<B>();
        let mut backend = connect(&self.networks[0].way);
        let mut group = self.criterion.benchmark_group(name);
        for (operation, variants) in &mut operations {
            for Variant { name, run } in variants {
                let id = format!("{operation}: {name}");
                group.bench_function(id, |bencher| bencher.iter(|| run(&mut backend)));
            }
        }
        group.finish();
        if self.tables {
            self.table(name, &mut operations, connect);
        }
    }

    fn table<B>(&self, name: &str, operations: &mut Operations<B>, connect: impl Fn(&Way) -> B)
    where
        B: LockBackend<Session: Driver> + 'static,
    {
        let mut heads = vec!["", "code", "round trips"];
        heads.extend(["socket", "ratio", "+ 0.5 ms", "ratio", "+ 2 ms", "ratio"]);
        heads.extend(["busy cores", "server's CPU"]);
        let mut table = Table::new(name, &heads);
        let counter = &self.networks[0].proxy;
        let mut counted = connect(&Way::through(counter));
        let mut backends: Vec<B> = self.networks.iter().map(|to| connect(&to.way)).collect();
        let local = self.networks[0].rounds;
        let mut session = backends[0].session().expect("a session");
        let cpu = Cpu::of(&mut *session);
        drop(session);
        for (operation, variants) in operations {
            let work = server_cpu(variants, &mut backends[0], cpu.as_ref(), (local / 4, 50));
            let busy = Busy::start();
            let on_busy = take_turns(variants, &mut backends[0], local / 4 + 1, 10);
            drop(busy);
            let networks = self.networks.iter().zip(&mut backends);
            let times: Vec<_> = networks
                .map(|(to, backend)| take_turns(variants, backend, to.rounds, to.repeat))
                .collect();
            for (index, Variant { name, run }) in variants.iter_mut().enumerate() {
                run(&mut counted); // it connects
                let round_trips = counter.count(|| run(&mut counted));
                let mut cells = vec![(*operation).to_owned(), (*name).to_owned()];
                cells.push(round_trips.to_string());
                for times in &times {
                    cells.push(format!("{:.0} µs", median(times[index].iter().copied())));
                    cells.push(format!("{:.2}", ratio(&times[index], &times[0])));
                }
                cells.push(format!("{:.2}", ratio(&on_busy[index], &on_busy[0])));
                cells.push(match &work {
                    Some(work) if !work[0].is_empty() => {
                        format!("{:.2}", ratio(&work[index], &work[0]))
                    }
                    _ => "–".to_owned(),
                });
                table.row(cells);
            }
            if measures() {
                let measured = [
                    ("idle", Some(&times[0])),
                    ("busy", Some(&on_busy)),
                    ("server's CPU", work.as_ref()),
                ];
                for (how, costs) in measured {
                    if let Some(costs) = costs {
                        verdicts((name, operation, how), variants, costs);
                    }
                }
            }
        }
        table.finish();
    }
}

/// What pglock promises on a local socket: at most so many times what the other way costs.
fn verdicts<B>(
    (backend, operation, how): (&str, &str, &str),
    variants: &[Variant<B>],
    costs: &[Vec<f64>],
) {
    let pair = match backend {
        _ if how == "server's CPU" => 1.15,
        "postgres" => 1.20,
        _ => 1.12,
    };
    let (other, most) = match operation {
        SESSION => (BARE, pair),
        TIMED => (UNTIMED, 1.1),
        TRANSACTION => (BY_HAND, 1.25),
        SEVERAL => (ONE_BY_ONE, 0.6),
        _ => return,
    };
    let place = |name| variants.iter().position(|variant| variant.name == name);
    let [mine, others] = [PGLOCK, other].map(|name| &costs[place(name).expect("a variant")]);
    let what = format!("{backend}, {operation}, {how}: {PGLOCK} / {other}");
    verdict(&what, ratio(mine, others), Bound::AtMost(most));
    if operation == TIMED && how == "idle" && backend == "postgres" {
        let usual = &costs[place(USUAL).expect("a variant")];
        let what = format!("{backend}, {operation}, {how}: {USUAL} / {PGLOCK}");
        verdict(&what, ratio(usual, mine), Bound::AtLeast(1.5));
    }
}
