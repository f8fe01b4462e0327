//! Networks of one width, laid out so that a look-up waits for one place in memory, whatever there is.

/// Disjoint networks. The span from the first to the last is cut into equal buckets, one [`Line`] each, a few networks to a
/// line; a network that reaches over several buckets stands in each. What crowds in one bucket stands elsewhere.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Nets<T, const N: usize> {
    lines: Box<[Line<T, N>]>,
    /// The networks of buckets that hold more than a line has room for, bucket after bucket.
    crowds: Box<[Net<T>]>,
    first: T,
    /// What a distance from the first address is shifted by, so that the longest has 32 bits.
    shift: u32,
    /// The longest.
    longest: u32,
    /// Buckets a unit of such a distance, times 2³².
    scale: u64,
}

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Whether one of the networks holds it.
    pub(super) held: bool,
    /// Whether that one is a part: only some of what it stands for is meant.
    pub(super) part: bool,
}

/// The networks of one bucket, in order, in as few cache lines as can be. Places that are left over repeat a network, which
/// changes no answer.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
struct Line<T, const N: usize> {
    starts: [T; N],
    hosts: [u8; N],
    /// Whether the networks stand elsewhere; the first two places then say from where on, and how many.
    crowded: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Net<T> {
    start: T,
    /// How many of its bits are the host's, and [`PART`].
    host: u8,
}

/// Marks a part. Shifts do not see it: they take a distance modulo the width.
const PART: u8 = 0x80;

impl<T: Word, const N: usize> Nets<T, N> {
    /// From ranges, first and last address of each, in any order and with overlaps, and from addresses that are parts where
    /// no range holds them.
    pub(super) fn new(ranges: Vec<(T, T)>, parts: impl Iterator<Item = T>) -> Self {
        let ranges = merged(ranges);
        let mut parts: Vec<T> = parts.filter(|part| !holds(&ranges, *part)).collect();
        parts.sort_unstable();
        parts.dedup();
        let mut nets: Vec<Net<T>> = parts.into_iter().map(|start| Net { start, host: PART }).collect();
        nets.extend(ranges.into_iter().flat_map(|(first, last)| Net::cover(first, last)));
        nets.sort_unstable_by_key(|net| net.start);
        Self::of(&nets)
    }

    fn of(nets: &[Net<T>]) -> Self {
        let (Some(head), Some(tail)) = (nets.first(), nets.last()) else { return Self::default() };
        let span = tail.last().distance(head.start);
        let shift = span.bit_len().saturating_sub(32);
        let longest = span.part(shift);
        // Two fifths full, fewer than one in a hundred is crowded where networks are strewn at random.
        let buckets = (nets.len() * 5 / (2 * N)).max(1) as u64;
        let scale = (buckets << 32) / (u64::from(longest) + 1);
        let own = Self { first: head.start, shift, longest, scale, ..Self::default() };
        own.filled(nets)
    }

    fn filled(mut self, nets: &[Net<T>]) -> Self {
        let (mut lines, mut crowds, mut rest) = (Vec::new(), Vec::new(), nets);
        for bucket in 0..=self.bucket(T::MAX) {
            let gone = rest.iter().take_while(|net| self.bucket(net.last()) < bucket).count();
            rest = rest.get(gone..).unwrap_or_default();
            let here = rest.iter().take_while(|net| self.bucket(net.start) <= bucket).count();
            let here = rest.get(..here).unwrap_or_default();
            // Where none is, the first of all says no to whatever belongs here.
            lines.push(Line::of(here, nets).unwrap_or_else(|| Line::crowded(crowds.len(), here.len())));
            crowds.extend_from_slice(if here.len() > N { here } else { &[] });
        }
        (self.lines, self.crowds) = (lines.into(), crowds.into());
        self
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Asks for an address. Nothing is jumped over here but a crowd: a jump that was guessed wrong costs more than the rest.
    #[inline]
    pub(super) fn find(&self, address: T) -> Found {
        let Some(line) = self.lines.get(self.bucket(address)) else { return Found::NOTHING };
        if line.crowded { self.find_in_crowd(line, address) } else { line.find(address) }
    }

    /// The bucket of an address; of one beyond all networks, the nearest.
    #[inline]
    fn bucket(&self, address: T) -> usize {
        let distance = address.distance(self.first).part(self.shift).min(self.longest);
        usize::try_from((u64::from(distance) * self.scale) >> 32).unwrap_or(usize::MAX)
    }

    #[cold]
    fn find_in_crowd(&self, line: &Line<T, N>, address: T) -> Found {
        let crowd = self.crowd(line);
        let below = crowd.partition_point(|net| net.start <= address);
        let nearest = below.checked_sub(1).and_then(|at| crowd.get(at));
        nearest.map_or(Found::NOTHING, |net| net.find(address))
    }

    fn crowd(&self, line: &Line<T, N>) -> &[Net<T>] {
        let word = |place: usize| line.starts.get(place).map_or(0, |word| word.part(0) as usize);
        self.crowds.get(word(0)..).and_then(|rest| rest.get(..word(1))).unwrap_or_default()
    }

    /// The addresses as ranges, first and last of each, in order; none of them touch. Parts are left out.
    pub(super) fn ranges(&self) -> Vec<(T, T)> {
        let mut nets: Vec<Net<T>> = Vec::new();
        for line in &self.lines {
            let own =
                line.starts.iter().zip(&line.hosts).map(|(start, host)| Net { start: *start, host: *host });
            if line.crowded {
                nets.extend(self.crowd(line));
            } else {
                nets.extend(own);
            }
        }
        merged(
            nets.into_iter().filter(|net| net.host & PART == 0).map(|net| (net.start, net.last())).collect(),
        )
    }
}

impl<T: Word, const N: usize> Line<T, N> {
    /// None where there are too many.
    fn of(here: &[Net<T>], all: &[Net<T>]) -> Option<Self> {
        let other = here.last().or(all.first()).filter(|_| here.len() <= N)?;
        let at = |place: usize| here.get(place).unwrap_or(other);
        let (starts, hosts) = (|place| at(place).start, |place| at(place).host);
        Some(Self { starts: std::array::from_fn(starts), hosts: std::array::from_fn(hosts), crowded: false })
    }

    fn crowded(from: usize, count: usize) -> Self {
        let starts = std::array::from_fn(|place| T::of(if place == 0 { from } else { count }));
        Self { starts, hosts: [0; N], crowded: true }
    }

    #[inline]
    fn find(&self, address: T) -> Found {
        let below: usize = self.starts.iter().map(|start| usize::from(*start <= address)).sum();
        let at = below.saturating_sub(1);
        let (Some(start), Some(host)) = (self.starts.get(at), self.hosts.get(at)) else {
            return Found::NOTHING;
        };
        Net { start: *start, host: *host }.find(address)
    }
}

impl Found {
    const NOTHING: Self = Self { held: false, part: false };
}

impl<T: Word> Net<T> {
    /// The fewest networks that hold a range and nothing else, from its first to its last address.
    fn cover(first: T, last: T) -> impl Iterator<Item = Self> {
        let mut rest = Some(first);
        std::iter::from_fn(move || {
            let start = rest.filter(|start| *start <= last)?;
            let net = Self { start, host: start.widest(last) };
            rest = net.last().next();
            Some(net)
        })
    }

    fn last(&self) -> T {
        self.start.with_low(self.host)
    }

    #[inline]
    fn find(&self, address: T) -> Found {
        Found { held: self.start.agrees(address, self.host), part: self.host & PART != 0 }
    }
}

/// Sorted, and what touches or overlaps made one.
pub(super) fn merged<T: Word>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    ranges.dedup_by(|(first, last), (_, end)| {
        let touches = end.next().is_none_or(|next| *first <= next);
        *end = if touches { (*end).max(*last) } else { *end };
        touches
    });
    ranges
}

/// Whether one of ranges that are [`merged`] holds an address.
fn holds<T: Word>(ranges: &[(T, T)], address: T) -> bool {
    let below = ranges.partition_point(|(first, _)| *first <= address);
    below.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| address <= *last)
}

/// An unsigned integer that an address is.
pub(super) trait Word: Copy + Ord + Default {
    const MAX: Self;
    /// At most the type's largest.
    fn of(count: usize) -> Self;
    fn next(self) -> Option<Self>;
    /// From another to this one; 0 where the other is beyond.
    fn distance(self, from: Self) -> Self;
    fn bit_len(self) -> u32;
    /// What is left after a shift, at most 32 bits of ones.
    fn part(self, shift: u32) -> u32;
    /// The host's bits of the largest network that begins here and does not reach beyond `last`; never all bits.
    fn widest(self, last: Self) -> u8;
    /// With the host's bits set, modulo the width.
    fn with_low(self, host: u8) -> Self;
    /// Whether two agree but for the host's bits, modulo the width.
    fn agrees(self, other: Self, host: u8) -> bool;
}

macro_rules! words {
    ($($int:ty),*) => {$(
        impl Word for $int {
            const MAX: Self = Self::MAX;
            fn of(count: usize) -> Self {
                Self::try_from(count).unwrap_or(Self::MAX)
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            #[inline]
            fn distance(self, from: Self) -> Self {
                self.saturating_sub(from)
            }
            fn bit_len(self) -> u32 {
                Self::BITS - self.leading_zeros()
            }
            #[inline]
            fn part(self, shift: u32) -> u32 {
                u32::try_from(self >> shift).unwrap_or(u32::MAX)
            }
            fn widest(self, last: Self) -> u8 {
                let room = (last - self).checked_add(1).map_or(Self::BITS - 1, Self::ilog2);
                self.trailing_zeros().min(room).min(Self::BITS - 1).try_into().unwrap_or(0)
            }
            fn with_low(self, host: u8) -> Self {
                self | (Self::from(1_u8).wrapping_shl(host.into()) - 1)
            }
            #[inline]
            fn agrees(self, other: Self, host: u8) -> bool {
                (self ^ other).wrapping_shr(host.into()) == 0
            }
        }
    )*};
}
words!(u32, u64, u128);

#[cfg(test)]
impl<T, const N: usize> Nets<T, N> {
    /// The memory that it takes.
    pub(super) fn octets(&self) -> usize {
        size_of_val(&*self.lines) + size_of_val(&*self.crowds)
    }
}
