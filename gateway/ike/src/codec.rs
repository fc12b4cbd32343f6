//! A small codec for what has to outlast a process: big-endian, without padding, without names. What is read may be
//! damaged or somebody else's: every length is checked against what is there, and nothing panics.

use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

/// What was read is not what was written by a program of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged, or of another version")]
pub struct Damaged;

/// Where values are written to. Wiped when dropped, also where it had to grow.
pub struct Writer {
    octets: Zeroizing<Vec<u8>>,
    origin: Instant,
}

/// Where values are read from.
pub struct Reader<'a> {
    octets: &'a [u8],
    origin: Instant,
}

/// A value that can be written and read again.
pub trait Field: Sized {
    /// Appends it.
    fn write(&self, to: &mut Writer);

    /// Takes it off the front.
    ///
    /// # Errors
    /// [`Damaged`].
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged>;
}

impl Writer {
    /// Times are written as distances from `origin`, which writer and reader have to agree on.
    pub fn new(origin: Instant) -> Self {
        Self { octets: Zeroizing::new(Vec::with_capacity(2048)), origin }
    }

    /// Appends octets as they are.
    pub fn put(&mut self, octets: &[u8]) {
        let needed = self.octets.len() + octets.len();
        if needed > self.octets.capacity() {
            // Not left to the vector: what it moves away from is not wiped.
            let mut grown = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
            grown.extend_from_slice(&self.octets);
            self.octets = grown;
        }
        self.octets.extend_from_slice(octets);
    }

    /// What was written.
    pub fn into_octets(self) -> Zeroizing<Vec<u8>> {
        self.octets
    }
}

impl<'a> Reader<'a> {
    /// Reads what a [`Writer`] with the same `origin` has written.
    pub fn new(octets: &'a [u8], origin: Instant) -> Self {
        Self { octets, origin }
    }

    /// Takes octets off the front.
    ///
    /// # Errors
    /// [`Damaged`] when there are not as many.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.octets.split_at_checked(count).ok_or(Damaged)?;
        self.octets = rest;
        Ok(taken)
    }

    /// # Errors
    /// [`Damaged`] when something is left.
    pub fn end(self) -> Result<(), Damaged> {
        if self.octets.is_empty() { Ok(()) } else { Err(Damaged) }
    }

    fn count(&mut self) -> Result<usize, Damaged> {
        let count = usize::try_from(u32::read(self)?).map_err(|_| Damaged)?;
        // Every element takes at least an octet: what is claimed is never more than what is there.
        if count <= self.octets.len() { Ok(count) } else { Err(Damaged) }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({} octets)", self.octets.len())
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({} octets)", self.octets.len())
    }
}

macro_rules! integers {
    ($($integer:ty),+) => {$(
        impl Field for $integer {
            fn write(&self, to: &mut Writer) {
                to.put(&self.to_be_bytes());
            }
            fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
                let octets = from.take(size_of::<Self>())?;
                Ok(Self::from_be_bytes(octets.try_into().map_err(|_| Damaged)?))
            }
        }
    )+};
}
integers!(u8, u16, u32, u64, i64);

impl Field for bool {
    fn write(&self, to: &mut Writer) {
        u8::from(*self).write(to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        match u8::read(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged),
        }
    }
}

impl<const N: usize> Field for [u8; N] {
    fn write(&self, to: &mut Writer) {
        to.put(self);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        from.take(N)?.try_into().map_err(|_| Damaged)
    }
}

impl<T: Field> Field for Option<T> {
    fn write(&self, to: &mut Writer) {
        self.is_some().write(to);
        self.iter().for_each(|value| value.write(to));
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        bool::read(from)?.then(|| T::read(from)).transpose()
    }
}

fn write_all<'a, T: Field + 'a>(values: impl ExactSizeIterator<Item = &'a T>, to: &mut Writer) {
    u32::try_from(values.len()).expect("no list has four thousand million elements").write(to);
    values.for_each(|value| value.write(to));
}

impl<T: Field> Field for Vec<T> {
    fn write(&self, to: &mut Writer) {
        write_all(self.iter(), to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let count = from.count()?;
        (0..count).map(|_| T::read(from)).collect()
    }
}

impl<T: Field> Field for VecDeque<T> {
    fn write(&self, to: &mut Writer) {
        write_all(self.iter(), to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Vec::read(from).map(Self::from)
    }
}

/// A key: read into memory that is wiped.
impl Field for Zeroizing<Vec<u8>> {
    fn write(&self, to: &mut Writer) {
        u32::try_from(self.len()).expect("no key has four thousand million octets").write(to);
        to.put(self);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let count = from.count()?;
        Ok(Zeroizing::new(from.take(count)?.to_vec()))
    }
}

impl<T: Field> Field for Box<T> {
    fn write(&self, to: &mut Writer) {
        (**self).write(to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        T::read(from).map(Box::new)
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn write(&self, to: &mut Writer) {
        self.0.write(to);
        self.1.write(to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok((A::read(from)?, B::read(from)?))
    }
}

impl Field for String {
    fn write(&self, to: &mut Writer) {
        u32::try_from(self.len()).expect("no text has four thousand million octets").write(to);
        to.put(self.as_bytes());
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let count = from.count()?;
        Self::from_utf8(from.take(count)?.to_vec()).map_err(|_| Damaged)
    }
}

impl Field for Duration {
    fn write(&self, to: &mut Writer) {
        u64::try_from(self.as_micros()).unwrap_or(u64::MAX).write(to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        u64::read(from).map(Self::from_micros)
    }
}

/// In microseconds from the origin.
impl Field for Instant {
    fn write(&self, to: &mut Writer) {
        let micros = |distance: Duration| i64::try_from(distance.as_micros()).unwrap_or(i64::MAX);
        match self.checked_duration_since(to.origin) {
            Some(after) => micros(after).write(to),
            None => (-micros(to.origin.saturating_duration_since(*self))).write(to),
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let micros = i64::read(from)?;
        let distance = Duration::from_micros(micros.unsigned_abs());
        let at =
            if micros < 0 { from.origin.checked_sub(distance) } else { from.origin.checked_add(distance) };
        // Deadlines are added to: what lies beyond all measure is none.
        at.filter(|at| at.checked_add(LONGEST).is_some()).ok_or(Damaged)
    }
}

/// More than what is ever added to a time.
const LONGEST: Duration = Duration::from_secs(1 << 32);

impl Field for IpAddr {
    fn write(&self, to: &mut Writer) {
        match self {
            Self::V4(v4) => (4u8, v4.octets()).write(to),
            Self::V6(v6) => (6u8, v6.octets()).write(to),
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        match u8::read(from)? {
            4 => <[u8; 4]>::read(from).map(Self::from),
            6 => <[u8; 16]>::read(from).map(Self::from),
            _ => Err(Damaged),
        }
    }
}

impl Field for SocketAddr {
    fn write(&self, to: &mut Writer) {
        (self.ip(), self.port()).write(to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        <(IpAddr, u16)>::read(from).map(Self::from)
    }
}

/// Makes a struct a [`Field`] by naming all its fields once. One that is missing does not compile.
#[macro_export]
macro_rules! kept {
    ($($type:ident { $($field:ident),+ $(,)? })+) => {$(
        impl $crate::codec::Field for $type {
            fn write(&self, to: &mut $crate::codec::Writer) {
                let Self { $($field),+ } = self;
                $($crate::codec::Field::write($field, to);)+
            }
            fn read(from: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::Damaged> {
                $(let $field = $crate::codec::Field::read(from)?;)+
                Ok(Self { $($field),+ })
            }
        }
    )+};
}

/// Makes an enum without contents a [`Field`] by giving each variant its number for good.
macro_rules! numbered {
    ($($type:ident { $($variant:ident = $number:literal),+ $(,)? })+) => {$(
        impl $crate::codec::Field for $type {
            fn write(&self, to: &mut $crate::codec::Writer) {
                let number: u8 = match self { $(Self::$variant => $number),+ };
                number.write(to);
            }
            fn read(from: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::Damaged> {
                match u8::read(from)? {
                    $($number => Ok(Self::$variant),)+
                    _ => Err($crate::codec::Damaged),
                }
            }
        }
    )+};
}
pub(crate) use numbered;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "std offers no other way to come by an Instant")]
    fn some_time() -> Instant {
        Instant::now()
    }

    fn round_trip<T: Field + PartialEq + fmt::Debug>(value: &T) {
        let origin = some_time();
        let mut writer = Writer::new(origin);
        value.write(&mut writer);
        let octets = writer.into_octets();
        let mut reader = Reader::new(&octets, origin);
        assert_eq!(T::read(&mut reader).as_ref(), Ok(value));
        assert_eq!(reader.end(), Ok(()));
        for cut in 0..octets.len() {
            let mut reader = Reader::new(&octets[..cut], origin);
            let read = T::read(&mut reader);
            assert!(read.is_err() || reader.end().is_ok(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            numbers: Vec<(u64, Option<u16>)>,
            text: String,
            v4: [u8; 4],
            v6: [u8; 16],
            port: u16,
            micros in 0u64..1 << 50,
        ) {
            round_trip(&numbers);
            round_trip(&text);
            round_trip(&Zeroizing::new(text.clone().into_bytes()));
            round_trip(&(SocketAddr::new(v4.into(), port), SocketAddr::new(v6.into(), port)));
            round_trip(&Duration::from_micros(micros));
        }

        #[test]
        fn garbage_is_damaged_and_nothing_worse(octets: Vec<u8>) {
            let read = |read: fn(&mut Reader<'_>) -> bool| read(&mut Reader::new(&octets, some_time()));
            let _ = read(|r| <Vec<(u32, String)>>::read(r).is_ok());
            let _ = read(|r| <Vec<Vec<Vec<u8>>>>::read(r).is_ok());
            let _ = read(|r| <VecDeque<Option<SocketAddr>>>::read(r).is_ok());
            let _ = read(|r| <Option<Box<Instant>>>::read(r).is_ok());
        }
    }

    #[test]
    fn times_keep_their_distance_from_the_origin() {
        let origin = some_time() + Duration::from_secs(100);
        let (before, after) = (origin - Duration::from_micros(7), origin + Duration::from_secs(7));
        let mut writer = Writer::new(origin);
        (before, after).write(&mut writer);
        let octets = writer.into_octets();
        let later = origin + Duration::from_secs(50);
        let read = <(Instant, Instant)>::read(&mut Reader::new(&octets, later)).unwrap();
        assert_eq!(read, (before + Duration::from_secs(50), after + Duration::from_secs(50)));
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        assert_eq!(<Vec<u64>>::read(&mut Reader::new(&[0xff; 8], some_time())), Err(Damaged));
    }
}
