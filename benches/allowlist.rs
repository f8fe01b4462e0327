//! Membership in an allow list of 10, 1,000 and 1,000,000 rows, hits and misses, and the making of the longest. A loop of
//! nothing but look-ups shows what a look-up computes, and what of the list the caches hold; `cold` is one by itself, as a
//! connection that comes after other work meets it.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use vestibule::addr::{CidrSet, ClientAddr, parse_list};

/// Enough different look-ups that neither caches nor branch predictors learn them.
const LOOKUPS: usize = 1 << 18;
/// What a walk through so many octets leaves of a list in the caches of a core is nothing.
const ELSEWHERE: usize = 64 << 20;

type Family = (&'static str, fn(&mut Random, usize) -> IpNet, fn(&mut Random) -> ClientAddr);
const FAMILIES: [Family; 2] = [("v4", v4_net, v4_address), ("v6", v6_net, v6_address)];

fn lookups(criterion: &mut Criterion) {
    for (family, random_net, random_address) in FAMILIES {
        let mut group = criterion.benchmark_group(format!("allowlist/{family}"));
        group.throughput(Throughput::Elements(LOOKUPS as u64));
        for rows in [10, 1_000, 1_000_000] {
            let mut random = Random(7);
            let nets: Vec<_> = (0..rows).map(|row| random_net(&mut random, row)).collect();
            let set: CidrSet = nets.iter().copied().collect();
            let hits: Vec<_> = (0..LOOKUPS)
                .filter_map(|_| nets.get(random.below(rows)))
                .map(|net| ClientAddr::new(net.addr()))
                .collect();
            let misses: Vec<_> = std::iter::repeat_with(|| random_address(&mut random))
                .filter(|address| !set.contains(*address))
                .take(LOOKUPS)
                .collect();
            for (name, addresses) in [("hit", hits), ("miss", misses)] {
                group.bench_with_input(BenchmarkId::new(name, rows), &addresses, |bencher, addresses| {
                    bencher.iter(|| addresses.iter().filter(|address| set.contains(**address)).count());
                });
            }
        }
        group.finish();
    }
}

fn cold(criterion: &mut Criterion) {
    let mut elsewhere = vec![0_u8; ELSEWHERE];
    let mut timed = |work: &mut dyn FnMut()| {
        elsewhere.iter_mut().step_by(64).for_each(|octet| *octet = octet.wrapping_add(1));
        black_box(&mut elsewhere);
        let began = Instant::now();
        work();
        began.elapsed()
    };
    for (family, random_net, random_address) in FAMILIES {
        let mut group = criterion.benchmark_group(format!("allowlist/{family} cold"));
        group.sample_size(20);
        for rows in [10, 1_000, 1_000_000] {
            let mut random = Random(7);
            let nets: Vec<_> = (0..rows).map(|row| random_net(&mut random, row)).collect();
            let set: CidrSet = nets.iter().copied().collect();
            for name in ["hit", "miss"] {
                let mut next = || match nets.get(random.below(rows)) {
                    Some(net) if name == "hit" => ClientAddr::new(net.addr()),
                    _ => random_address(&mut random),
                };
                group.bench_function(BenchmarkId::new(name, rows), |bencher| {
                    bencher.iter_custom(|count| {
                        (0..count).fold(Duration::ZERO, |sum, _| {
                            let address = next();
                            let lookup = timed(&mut || _ = black_box(set.contains(black_box(address))));
                            // What the clock and the call take.
                            sum + lookup.saturating_sub(timed(&mut || _ = black_box(address)))
                        })
                    });
                });
            }
        }
        group.finish();
    }
}

fn building(criterion: &mut Criterion) {
    let mut random = Random(7);
    let nets: Vec<_> = (0..1_000_000).map(|row| v4_net(&mut random, row)).collect();
    let text = nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join("\n");
    let mut group = criterion.benchmark_group("allowlist/build");
    group.sample_size(10);
    group.bench_function("1000000", |bencher| {
        bencher.iter_batched(
            || nets.clone(),
            |nets| nets.into_iter().collect::<CidrSet>(),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("1000000 lines", |bencher| bencher.iter(|| parse_list(black_box(&text))));
    group.finish();
}

/// Of every five in turn, so that a list of ten is made up as one of a million.
fn v4_net(random: &mut Random, row: usize) -> IpNet {
    let prefix = [32, 32, 32, 24, 22].get(row % 5).copied().unwrap_or(32);
    IpNet::new_assert(Ipv4Addr::from_bits(random.u32()).into(), prefix).trunc()
}

fn v4_address(random: &mut Random) -> ClientAddr {
    ClientAddr::new(Ipv4Addr::from_bits(random.u32()).into())
}

/// Inside `2000::/8`, as networks that are given out are.
fn v6_net(random: &mut Random, row: usize) -> IpNet {
    let prefix = [128, 64, 64, 48, 48].get(row % 5).copied().unwrap_or(128);
    IpNet::new_assert(v6_address(random).ip(), prefix).trunc()
}

fn v6_address(random: &mut Random) -> ClientAddr {
    let bits = (0..4).fold(0_u128, |bits, _| (bits << 32) | u128::from(random.u32()));
    ClientAddr::new(Ipv6Addr::from_bits((0x20 << 120) | (bits >> 8)).into())
}

/// Xorshift, so that every run asks the same.
struct Random(u64);

impl Random {
    fn u32(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    fn below(&mut self, end: usize) -> usize {
        self.u32() as usize % end
    }
}

criterion_group!(benches, lookups, cold, building);
criterion_main!(benches);
