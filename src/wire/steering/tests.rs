//! Programs are run as the kernel runs them.

use super::bucket::bucket;
use super::*;
use crate::core::BUCKETS;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a program sees.
#[derive(Clone, Default)]
struct Packet {
    /// From the header of IP on.
    net: Vec<u8>,
    /// From where loads are that say no more: the data, or for a filter the header of TCP.
    data: Vec<u8>,
    random: Vec<u32>,
    cpu: u32,
}

fn load(p: &Packet, k: u32, len: usize) -> Option<u32> {
    let bytes = match k.checked_sub(NET) {
        Some(at) => p.net.get(at as usize..)?.get(..len),
        None => p.data.get(k as usize..)?.get(..len),
    };
    Some(bytes?.iter().fold(0, |all, b| all << 8 | u32::from(*b)))
}

/// What a program returns for that packet. As in the kernel, a load from outside it ends it with 0; what
/// the kernel would refuse panics.
fn run(program: &[Ins], packet: &Packet) -> u32 {
    let (mut a, mut x, mut kept, mut at) = (0u32, 0u32, [0u32; 16], 0);
    let mut random = packet.random.iter();
    loop {
        let i = program[at];
        at += 1;
        match (i.code, i.k) {
            (LOAD, k) => a = k,
            (LOAD_WORD, RANDOM) => a = *random.next().unwrap(),
            (LOAD_WORD, CPU) => a = packet.cpu,
            (LOAD_WORD | LOAD_HALF | LOAD_HALF_X | LOAD_BYTE | LOADX_HEADER, k) => {
                let (k, len) = match i.code {
                    LOAD_WORD => (k, 4),
                    LOAD_HALF => (k, 2),
                    LOAD_HALF_X => (k.checked_add(x).unwrap(), 2),
                    _ => (k, 1),
                };
                match load(packet, k, len) {
                    Some(n) if i.code == LOADX_HEADER => x = 4 * (n & 15),
                    Some(n) => a = n,
                    None => return 0,
                }
            }
            (STORE, k) => kept[k as usize] = a,
            (LOAD_KEPT, k) => a = kept[k as usize],
            (LOADX_KEPT, k) => x = kept[k as usize],
            (TAX, _) => x = a,
            (ADD, k) => a = a.wrapping_add(k),
            (MUL, k) => a = a.wrapping_mul(k),
            (MOD, k) => a %= k,
            (AND, k) => a &= k,
            (XOR, k) => a ^= k,
            (XOR_X, _) => a ^= x,
            (LSH, k) => a = a.checked_shl(k).unwrap(),
            (RSH, k) => a = a.checked_shr(k).unwrap(),
            (RSH_X, _) => a = a.checked_shr(x).unwrap(),
            (JA, k) => at += k as usize,
            (JEQ, k) => at += usize::from(if a == k { i.jt } else { i.jf }),
            (JGE, k) => at += usize::from(if a >= k { i.jt } else { i.jf }),
            (RET, k) => return k,
            (RET_A, _) => return a,
            (code, k) => panic!("{code:#x} {k:#x}"),
        }
    }
}

fn by_chance(program: &[Ins], random: &[u32]) -> u32 {
    let random = random.to_vec();
    run(
        program,
        &Packet {
            random,
            ..Packet::default()
        },
    )
}

/// xorshift: one number after the other, always the same.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 24) as u32
    }
}

/// A SYN from there; of IPv4 with so many words of options.
fn syn(peer: SocketAddr, options: u8) -> Packet {
    let mut net = match peer.ip() {
        IpAddr::V4(ip) => {
            let mut head = vec![0; 20 + 4 * usize::from(options)];
            head[0] = 0x45 + options;
            head[12..16].copy_from_slice(&ip.octets());
            head
        }
        IpAddr::V6(ip) => {
            let mut head = vec![0; 40];
            head[0] = 0x6f;
            head[8..24].copy_from_slice(&ip.octets());
            head
        }
    };
    net.extend(peer.port().to_be_bytes());
    net.extend([0; 18]);
    Packet {
        net,
        ..Packet::default()
    }
}

fn by(key: Key, lanes: &[u32]) -> Table {
    Table {
        deal: Deal::Buckets(key, lanes.to_vec()),
        part: None,
    }
}

/// A bucket's index is its number.
fn all_different(n: usize) -> Vec<u32> {
    (0..n as u32).collect()
}

fn v4(a: u32, port: u16) -> SocketAddr {
    (Ipv4Addr::from_bits(a), port).into()
}

const EACH: [Key; 2] = [Key::Client, Key::Connection];

#[test]
fn the_program_and_we_put_a_client_into_the_same_bucket() {
    let mut dice = Dice(88_172_645_463_325_252);
    for key in EACH {
        for n in [2, 4, 64, BUCKETS] {
            let p = program(&by(key, &all_different(n)));
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..2000 {
                let port = dice.next() as u16;
                let four = v4(dice.next(), port);
                let want = bucket(key, four, n);
                for options in [0, 1, 10] {
                    assert_eq!(run(&p, &syn(four, options)) as usize, want, "{four}");
                }
                let IpAddr::V4(ip) = four.ip() else {
                    panic!("{four}")
                };
                let mapped = (ip.to_ipv6_mapped(), port).into();
                assert_eq!(bucket(key, mapped, n), want, "{mapped}");
                let words = [(); 4].map(|()| u128::from(dice.next()));
                let ip = words.iter().fold(0, |all, w| all << 32 | w);
                let six: SocketAddr = (Ipv6Addr::from_bits(ip), port).into();
                assert_eq!(run(&p, &syn(six, 0)) as usize, bucket(key, six, n), "{six}");
                seen.insert(want);
                if key == Key::Client {
                    let other = (Ipv6Addr::from_bits(ip ^ 0xffff), !port).into();
                    assert_eq!(bucket(key, other, n), bucket(key, six, n), "{six}");
                    assert_eq!(bucket(key, v4(ip_bits(four), !port), n), want, "{four}");
                }
            }
            assert!(seen.len() > n * 3 / 4 && seen.iter().all(|b| *b < n));
        }
    }
}

fn ip_bits(addr: SocketAddr) -> u32 {
    match addr.ip() {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => panic!("{ip}"),
    }
}

/// A thousand clients each that are neighbours in one way or another.
fn families() -> Vec<(&'static str, Key, Vec<SocketAddr>)> {
    const LOCAL: u32 = 0x7f00_0000;
    const TEN: u32 = 0x0a00_0000;
    let clients = |f: &dyn Fn(u32) -> u32| (0..1000).map(|i| v4(f(i), 40000)).collect();
    let sixes = |f: &dyn Fn(u128) -> (u128, u16)| {
        let six = |i| {
            let (ip, port) = f(i);
            (Ipv6Addr::from_bits(ip), port).into()
        };
        (0..1000).map(six).collect()
    };
    let ports = |f: &dyn Fn(u32) -> (u32, u16)| {
        let four = |i| {
            let (ip, port) = f(i);
            v4(ip, port)
        };
        (0..1000).map(four).collect()
    };
    let (client, connection) = (Key::Client, Key::Connection);
    let net = 0x2001_0db8_u128 << 96;
    vec![
        (
            "127.0.x.1..100",
            client,
            clients(&|i| LOCAL + ((i / 100) << 8) + i % 100 + 1),
        ),
        ("127.0.i.7", client, clients(&|i| LOCAL + (i << 8) + 7)),
        (
            "127.i.x.7",
            client,
            clients(&|i| LOCAL + ((i % 250) << 16) + ((i / 250) << 8) + 7),
        ),
        ("10.x.y.z", client, clients(&|i| TEN + i)),
        ("10.0.4i", client, clients(&|i| TEN + 4 * i)),
        ("10.16i", client, clients(&|i| TEN + 1 + 16 * i)),
        ("10.y.z.1", client, clients(&|i| TEN + (i << 8) + 1)),
        ("10.y.16z.1", client, clients(&|i| TEN + (i << 12) + 1)),
        (
            "i.x.1.1",
            client,
            clients(&|i| ((i % 250) << 24) + ((i / 250) << 16) + 257),
        ),
        (
            "one after the other",
            connection,
            ports(&|i| (LOCAL + 1, 32768 + i as u16)),
        ),
        (
            "every other port",
            connection,
            ports(&|i| (TEN + 9, 32768 + 2 * i as u16)),
        ),
        (
            "many of a hundred",
            connection,
            ports(&|i| (TEN + i % 100, 40000 + (i / 100) as u16)),
        ),
        ("a /48", client, sixes(&|i| (net | i << 64, 1))),
        ("/56s", client, sixes(&|i| (net | i << 72, 1))),
        ("/48s", client, sixes(&|i| (net | i << 80, 1))),
        ("/32s", client, sixes(&|i| (net + (i << 96), 1))),
        ("hosts of a /64", connection, sixes(&|i| (net | i, 40000))),
        (
            "ports of ::1",
            connection,
            sixes(&|i| (1, 32768 + i as u16)),
        ),
    ]
}

#[test]
fn clients_who_are_neighbours_spread_evenly() {
    for (name, key, peers) in families() {
        // Neighbouring buckets, and every fourth one.
        let groups: [&dyn Fn(usize) -> usize; 2] = [&|b| b / (BUCKETS / 4), &|b| b % 4];
        for group in groups {
            let mut got = [0; 4];
            for peer in &peers {
                got[group(bucket(key, *peer, BUCKETS))] += 1;
            }
            // 0.65 to 1.35 of 250.
            assert!(
                got.iter().all(|n| (163..=337).contains(n)),
                "{name}: {got:?}"
            );
        }
    }
}

#[test]
fn a_client_always_meets_the_same_code_and_its_part_says_nothing_of_its_bucket() {
    for percent in [10, 50] {
        let table = Table {
            deal: Deal::Buckets(Key::Client, all_different(BUCKETS)),
            part: Some((percent, Deal::Shares(vec![(5000, 1), (5001, 1)]))),
        };
        let (p, mut all) = (program(&table), (0, 0, [0; 4]));
        for (name, _, peers) in families().iter().filter(|(_, k, _)| *k == Key::Client) {
            let mut part = 0;
            for peer in peers {
                let mut packet = syn(*peer, 0);
                packet.random = vec![2];
                let lane = run(&p, &packet);
                let is_part = lane == 5000;
                let b = bucket(Key::Client, *peer, BUCKETS);
                assert!(is_part || lane as usize == b, "{peer} {lane}");
                packet.net[20..].fill(7);
                assert_eq!(run(&p, &packet), lane, "{peer}");
                part += usize::from(is_part);
                all.2[b * 4 / BUCKETS] += usize::from(is_part);
            }
            let want = usize::from(percent) * 10;
            assert!(part.abs_diff(want) * 10 <= want * 3, "{name}: {part}");
            all = (all.0 + part, all.1 + peers.len(), all.2);
        }
        let want = all.1 * usize::from(percent) / 100;
        assert!(all.0.abs_diff(want) * 20 <= want, "{all:?}");
        let even = |n: &usize| (n * 4).abs_diff(all.0) * 5 <= all.0;
        assert!(all.2.iter().all(even), "{all:?}");
    }
}

#[test]
fn a_part_at_random_is_exactly_so_many_of_a_hundred() {
    for deal in [Deal::Shares(vec![(1, 1)]), Deal::Cpus(vec![(0, vec![1])])] {
        for percent in [0, 1, 10, 99, 100] {
            // Too long to be jumped over in one step.
            for part in [
                vec![2, 3],
                all_different(300).iter().map(|i| i * 2 + 2).collect(),
            ] {
                let shares: Vec<(u32, u32)> = part.iter().map(|i| (*i, 1)).collect();
                let table = Table {
                    deal: deal.clone(),
                    part: Some((percent, Deal::Shares(shares))),
                };
                let p = program(&table);
                let got = (0..100).filter(|r| by_chance(&p, &[200 + r, *r]) != 1);
                assert_eq!(got.count(), usize::from(percent));
            }
        }
    }
}

#[test]
fn every_bucket_has_the_lane_that_the_table_says_and_it_fits() {
    let mut dice = Dice(7);
    let mut of = |lanes: u32, run: usize| -> Vec<u32> {
        let one = |_| vec![dice.next() % lanes; run];
        (0..BUCKETS / run).flat_map(one).collect()
    };
    let tables = [
        all_different(BUCKETS),
        of(2, 1),
        of(3, 4),
        of(64, 1),
        of(1032, 2),
        vec![6; BUCKETS],
        all_different(2),
        vec![9],
    ];
    for lanes in tables {
        for key in EACH {
            let p = program(&by(key, &lanes));
            assert!(p.len() < 1700, "{}", p.len());
            for i in 0..3000 {
                let peer = v4(0x0a00_0000 + i, i as u16);
                let want = lanes[bucket(key, peer, lanes.len())];
                assert_eq!(run(&p, &syn(peer, 0)), want, "{peer}");
            }
        }
    }
    let deal = Deal::Buckets(Key::Client, all_different(BUCKETS));
    let part = Some((10, Deal::Buckets(Key::Connection, all_different(BUCKETS))));
    assert!(program(&Table { deal, part }).len() < MOST);
    let one = program(&by(Key::Client, &[6; BUCKETS]));
    assert_eq!(one, [Ins::new(RET, 6)]);
    assert_eq!(program(&by(Key::Client, &[])), [Ins::new(RET, NOWHERE)]);
}

#[test]
fn half_the_buckets_leave_every_other_one_where_it_is_and_no_lane_without() {
    let halved = |lanes: &[u32]| {
        let mut table = by(Key::Client, lanes);
        table.shrink().then_some(table.deal)
    };
    let half = |lanes: &[u32]| Some(Deal::Buckets(Key::Client, lanes.to_vec()));
    assert_eq!(halved(&[1, 2, 3, 3, 1, 1, 2, 3]), half(&[1, 3, 1, 2]));
    // 2 would have none: it keeps one of its own.
    assert_eq!(halved(&[1, 2, 1, 1, 3, 3, 1, 2]), half(&[2, 1, 3, 1]));
    // None of its own is free.
    assert_eq!(halved(&[1, 2, 3, 1, 4, 4, 4, 4]), half(&[1, 3, 2, 4]));
    // They are more than half: at random, then.
    let each = Deal::Shares((1..6).map(|l| (l, 1)).collect());
    assert_eq!(halved(&[1, 2, 3, 4, 1, 1, 1, 5]), Some(each));
    // Which is why their number is of the high bits.
    for i in 0..1000 {
        let peer = v4(0x0a00_0000 + i, 1);
        let b = bucket(Key::Client, peer, BUCKETS);
        assert_eq!(bucket(Key::Client, peer, BUCKETS / 2), b / 2);
    }
    let mut dice = Dice(3);
    for lanes in [1, 5, 100, 500, 512] {
        let mut all: Vec<u32> = all_different(BUCKETS).iter().map(|b| b % lanes).collect();
        for at in 0..BUCKETS {
            all.swap(at, dice.next() as usize % BUCKETS);
        }
        let mut table = by(Key::Client, &all);
        let mut sizes = vec![BUCKETS];
        while let Some((_, n)) = table.shrink().then(|| table.buckets()).flatten() {
            sizes.push(n);
            let Deal::Buckets(_, left) = &table.deal else {
                panic!("{table:?}")
            };
            let some: std::collections::BTreeSet<u32> = left.iter().copied().collect();
            assert_eq!(some.len(), lanes as usize);
        }
        assert_eq!(sizes.last(), Some(&(lanes as usize).next_power_of_two()));
        // At random, then.
        let each = (0..lanes).map(|l| (l, 1)).collect();
        assert_eq!(table.deal, Deal::Shares(each));
        assert!(!table.shrink());
    }
}

#[test]
fn each_cpu_has_its_lanes() {
    let deal = Deal::Cpus(vec![
        (0, vec![4]),
        (1, vec![9, 2]),
        (2, vec![9, 2]),
        (3, vec![7]),
        (200, vec![1, 2, 3]),
    ]);
    let p = program(&Table { deal, part: None });
    let at = |cpu, random| {
        let random = vec![random];
        run(
            &p,
            &Packet {
                cpu,
                random,
                ..Packet::default()
            },
        )
    };
    for (cpu, lanes) in [
        (0, [4, 4]),
        (1, [2, 9]),
        (2, [2, 9]),
        (3, [7, 7]),
        (199, [7, 7]),
    ] {
        assert_eq!([at(cpu, 4), at(cpu, 5)], lanes, "{cpu}");
    }
    assert_eq!([9, 10, 11].map(|r| at(200, r)), [1, 2, 3]);
    assert_eq!([9, 10, 11].map(|r| at(8191, r)), [1, 2, 3]);
    let deal = Deal::Cpus((0..1024).map(|n| (n, vec![1023 - u32::from(n)])).collect());
    let p = program(&Table { deal, part: None });
    assert!(p.len() < MOST, "{}", p.len());
    for cpu in 0..1024 {
        let packet = Packet {
            cpu,
            ..Packet::default()
        };
        assert_eq!(run(&p, &packet), 1023 - cpu);
    }
}

#[test]
fn a_table_of_lanes_is_one_of_places() {
    let [a, b] = [LaneId(7), LaneId(9)];
    let at = BTreeMap::from([(a, 3), (b, 0)]);
    let table = core::Table {
        deal: core::Deal::Cpus(vec![(0, vec![a, b]), (4, vec![b])]),
        part: Some((5, core::Deal::Buckets(Key::Client, vec![b, a]))),
    };
    let want = Table {
        deal: Deal::Cpus(vec![(0, vec![3, 0]), (4, vec![0])]),
        part: Some((5, Deal::Buckets(Key::Client, vec![0, 3]))),
    };
    assert_eq!(Table::of(&table, &at), want);
    let table = core::Table::shares(vec![(b, 2), (a, 7)]);
    assert_eq!(Table::of(&table, &at), Table::shares(&[(0, 2), (3, 7)]));
}

#[test]
fn each_lane_gets_exactly_its_share_of_all_residues() {
    let eight: Vec<(u32, u32)> = (0..8).map(|i| (7 - i, MAX_WEIGHT - i)).collect();
    let alike: Vec<(u32, u32)> = (3..700).rev().map(|i| (i, 1)).collect();
    let tables: [&[(u32, u32)]; 8] = [
        &[(3, 1), (0, 3)],
        &[(0, 1), (1, 1)],
        &[(5, 1), (2, 1023), (9, 7)],
        &[(1, MAX_WEIGHT), (0, 1), (2, MAX_WEIGHT)],
        &[(0, 0), (4, 2), (1, 0), (2, 5), (3, 0)],
        &[(8, 1), (2, 1), (1, 1), (9, 1), (3, 2), (4, 1), (5, 1)],
        &eight,
        &alike,
    ];
    for table in tables {
        let p = program(&Table::shares(table));
        assert!(p.len() <= 2 * table.len() + 4, "{p:?}");
        let total: u32 = table.iter().map(|(_, w)| w).sum();
        for base in [0, (u32::MAX / total - 1) * total] {
            let mut got = std::collections::BTreeMap::new();
            for r in 0..total {
                *got.entry(by_chance(&p, &[base + r])).or_insert(0) += 1;
            }
            let some = table.iter().filter(|(_, w)| *w > 0).copied();
            assert_eq!(got, some.collect(), "{table:?}");
        }
    }
    // Those that follow each other take no room.
    assert_eq!(program(&Table::shares(&alike)).len(), 4);
}

#[test]
fn one_lane_needs_no_dice_and_none_is_no_lane() {
    for table in [&[(6, 1)][..], &[(6, 1024)], &[(1, 0), (6, 2), (2, 0)]] {
        assert_eq!(program(&Table::shares(table)), [Ins::new(RET, 6)]);
    }
    for table in [&[][..], &[(0, 0), (1, 0)]] {
        assert_eq!(program(&Table::shares(table)), [Ins::new(RET, NOWHERE)]);
    }
}

#[test]
fn what_is_beyond_the_limits_does_not_count() {
    assert_eq!(
        program(&Table::shares(&[(0, u32::MAX), (1, 5000)])),
        program(&Table::shares(&[(0, MAX_WEIGHT), (1, MAX_WEIGHT)]))
    );
    let more: Vec<(u32, u32)> = (0..=1032).map(|i| (2 * i, 2)).collect();
    let all = program(&Table::shares(&more));
    assert_eq!(all, program(&Table::shares(&more[..MAX_LANES])));
    assert!(all.len() < MOST);
}

#[test]
fn only_what_opens_a_connection_is_refused() {
    let p = refuse_new();
    for flags in 0..=255u8 {
        let mut data = vec![0xff; 20];
        data[13] = flags;
        let opens = flags & 0x02 != 0 && flags & 0x10 == 0;
        let packet = Packet {
            data,
            ..Packet::default()
        };
        assert_eq!(run(&p, &packet), if opens { 0 } else { u32::MAX });
    }
    let short = Packet {
        data: vec![0; 13],
        ..Packet::default()
    };
    assert_eq!(run(&p, &short), 0);
}

#[test]
fn one_client_alone_gets_in_and_goes_to_a_lane_of_its_own_whatever_the_program_says_of_others() {
    let a = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let ones = [a("127.0.0.1:40000"), a("[2001:db8:1:2:3:4:5:6]:40000")];
    let others = [
        "127.0.0.1:40001",
        "127.0.0.2:40000",
        "10.0.0.9:40000",
        "[2001:db8:1:2:3:4:5:6]:40001",
        "[2001:db8:1:2:3:4:5:7]:40000",
        "[2001:db9:1:2:3:4:5:6]:40000",
    ];
    let from: Vec<(SocketAddr, u32)> = ones.iter().copied().zip([7, 9]).collect();
    let all = ahead(&from, program(&Table::only(3)));
    for options in [0, 3] {
        for (one, lane) in &from {
            assert_eq!(run(&all, &syn(*one, options)), *lane);
        }
        for other in others {
            assert_eq!(run(&all, &syn(a(other), options)), 3, "{other}");
        }
    }
    for one in ones {
        let filter = refuse_but(one);
        let packet = |from: SocketAddr, flags: u8| {
            let mut p = syn(from, 0);
            p.data = from.port().to_be_bytes().to_vec();
            p.data.resize(20, 0);
            p.data[13] = flags;
            p
        };
        for flags in 0..=255u8 {
            let opens = flags & 0x12 == 0x02;
            assert_eq!(run(&filter, &packet(one, flags)), u32::MAX);
            for other in others
                .map(a)
                .into_iter()
                .chain(ones.into_iter().filter(|o| *o != one))
            {
                let want = if opens { 0 } else { u32::MAX };
                assert_eq!(run(&filter, &packet(other, flags)), want, "{other} {flags}");
            }
        }
    }
}
