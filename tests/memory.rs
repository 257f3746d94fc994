//! What a server holds for its clients, counted by its allocator: while they connect, once they are
//! connected, after their keys were renewed, and that all of it is given back.

mod common;

use std::cell::Cell;
use std::sync::Arc;

use common::Seeded;
use common::heap::{self, Counted};
use common::net::Net;
use common::pki::Site;
use common::shared::Shared;
use sixgate::engine::Reply;
use sixgate::server::Server;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

thread_local! {
    /// What the server holds.
    static SERVER: Cell<isize> = const { Cell::new(0) };
    /// What this thread held when the server began to work.
    static BEFORE: Cell<isize> = const { Cell::new(0) };
}

fn around(begins: bool) {
    match begins {
        true => BEFORE.set(heap::held()),
        false => SERVER.set(SERVER.get() + heap::held() - BEFORE.get()),
    }
}

/// A server with so many clients, which are all up.
fn serve(seed: u64, clients: usize, extra: &str) -> Net {
    let site = Site::default();
    let mut net = Net::new(seed);
    let config = Arc::new(site.server_config(extra));
    let server = Server::new(config, net.now, Box::new(Seeded(seed))).unwrap();
    net.add("192.0.2.1:1194", Box::new(Shared::new(server, around)));
    SERVER.set(0);
    for number in 1..=clients {
        let client = site.client(net.now, &format!("client{number}"), "", seed + number as u64);
        let address = format!("198.51.{}.{}:40000", number / 250, number % 250);
        let node = net.add(&address, client);
        assert!(net.run_until(30_000, |net| net.nodes[node].settings.is_some()), "{number}");
    }
    net.run(5_000);
    net
}

fn per_client(clients: usize) -> isize {
    SERVER.get() / clients as isize
}

#[test]
fn clients_cost_what_limits_says() {
    let clients = 20;
    let mut net = serve(1200, clients, "reneg-sec 60 60\n");
    let connected = per_client(clients);
    net.run(80_000);
    let renewed = per_client(clients);
    println!("{connected} bytes per client, {renewed} while there are two keys");
    assert!(connected < 24 * 1024, "{connected} bytes per client");
    assert!(renewed < 24 * 1024, "{renewed} bytes per client with two keys");
    net.reply(0, Reply::Restart);
    (1..=clients).for_each(|node| net.nodes[node].off = true);
    net.run(400_000);
    assert!(net.nodes[0].engine.clients().is_empty());
    assert!(SERVER.get() < 24 * 1024, "{} bytes are not given back", SERVER.get());
}
