//! An instance of the component, and the loop that every host of it has.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::component::ResourceAny;
use wasmtime::{Store, StoreLimits};

use crate::bindings::{self, EnginePre};
use crate::clock::Clock;
use crate::error::Error;
use crate::layers::{Data, Descriptor, OpenStep, ReadStep, Span};
use crate::types::{Assurance, ByteRange};

/// Takes bytes of a blob and where they start in it.
pub type Give<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Error> + 'a;

/// Where the bytes of a layer come from. They need no trust.
pub trait Source {
    /// Brings ranges of the blob, in any order and in pieces of any size; best side by side.
    ///
    /// # Errors
    /// [`Error::Source`], or what `give` says.
    fn fetch(&self, ranges: &[ByteRange], give: &mut Give<'_>) -> Result<(), Error>;

    /// Brings the table of contents of a layer that has it in another image.
    ///
    /// # Errors
    /// [`Error::Source`]; unless a source knows better, that there is none.
    fn external_toc(&self) -> Result<Cow<'_, [u8]>, Error> {
        Err(Error::Source("the table of contents is in another image".into()))
    }
}

/// A blob in memory.
impl<T: AsRef<[u8]>> Source for T {
    fn fetch(&self, ranges: &[ByteRange], give: &mut Give<'_>) -> Result<(), Error> {
        for ByteRange { offset, length } in ranges {
            let range = usize::try_from(*offset).ok().zip(usize::try_from(*length).ok());
            let bytes = range.and_then(|(start, len)| self.as_ref().get(start..)?.get(..len));
            give(*offset, bytes.ok_or_else(|| Error::Source("the blob is too short".into()))?)?;
        }
        Ok(())
    }
}

/// A resource of the component. It is dropped with the sandbox, or by [`Sandbox::drop_handle`].
pub type Handle = ResourceAny;

/// An instance of the component, with memory of its own.
///
/// Threads may share it: it is busy for the time of a call, and not while a source fetches. After
/// [`Error::Stopped`] every call fails.
pub struct Sandbox {
    store: Mutex<Store<StoreLimits>>,
    api: bindings::Engine,
    ticks: u64,
    clock: Arc<Clock>,
}

impl Sandbox {
    pub(crate) fn new(
        component: &EnginePre<StoreLimits>,
        limits: StoreLimits,
        ticks: u64,
        clock: Arc<Clock>,
    ) -> Result<Self, Error> {
        let mut store = Store::new(component.engine(), limits);
        store.limiter(|limits| limits);
        store.set_epoch_deadline(ticks);
        let call = clock.call();
        let api = component.instantiate(&mut store).map_err(stopped)?;
        drop(call);
        Ok(Self { store: Mutex::new(store), api, ticks, clock })
    }

    /// Calls into the component, for as long as the limits allow.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the call does not return.
    pub fn call<T>(
        &self,
        call: impl FnOnce(&bindings::Engine, &mut Store<StoreLimits>) -> wasmtime::Result<T>,
    ) -> Result<T, Error> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let _call = self.clock.call();
        store.set_epoch_deadline(self.ticks);
        call(&self.api, &mut store).map_err(stopped)
    }

    /// Opens a layer that a manifest describes, and that can be trusted at least as far as `least`.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn open(
        &self,
        descriptor: &Descriptor,
        least: Assurance,
        source: &impl Source,
    ) -> Result<Handle, Error> {
        let opener = self.call(|api, store| {
            let opener = api.lazystar_engine_layers().opener();
            opener.call_constructor(store, descriptor)
        })?;
        self.call(|api, store| {
            api.lazystar_engine_layers().opener().call_accept(store, opener, least)
        })??;
        loop {
            let step = self
                .call(|api, store| api.lazystar_engine_layers().opener().call_poll(store, opener));
            match step?? {
                OpenStep::Done => break,
                OpenStep::ExternalToc => {
                    let json = source.external_toc()?;
                    self.call(|api, store| {
                        let layers = api.lazystar_engine_layers();
                        layers.opener().call_supply_toc(store, opener, &json)
                    })??;
                }
                OpenStep::Need(ranges) => {
                    source.fetch(&ranges, &mut |offset, bytes| {
                        Ok(self.call(|api, store| {
                            let layers = api.lazystar_engine_layers();
                            layers.opener().call_supply(store, opener, offset, bytes)
                        })??)
                    })?;
                }
            }
        }
        let layer = self.call(|api, store| {
            api.lazystar_engine_layers().opener().call_finish(store, opener)
        })??;
        Ok(layer)
    }

    /// Reads parts of files of a layer, in the order given. `each` gets the position of a part in
    /// `spans` and verified bytes of it.
    ///
    /// # Errors
    /// What the component, the source or `each` says.
    pub fn read(
        &self,
        layer: Handle,
        spans: &[Span],
        source: &impl Source,
        each: impl FnMut(Data) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let reader = self.call(|api, store| {
            api.lazystar_engine_layers().layer().call_read(store, layer, spans)
        })??;
        let result = self.drive(reader, source, each);
        let dropped = self.drop_handle(reader);
        result.and(dropped)
    }

    fn drive(
        &self,
        reader: Handle,
        source: &impl Source,
        mut each: impl FnMut(Data) -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            let step = self.call(|api, store| {
                api.lazystar_engine_layers().reader().call_poll(store, reader, 0)
            });
            match step?? {
                ReadStep::Done => return Ok(()),
                ReadStep::Data(data) => each(data)?,
                ReadStep::Need(needs) => {
                    let ranges: Vec<_> = needs.into_iter().map(|need| need.blob_range).collect();
                    source.fetch(&ranges, &mut |offset, bytes| {
                        Ok(self.call(|api, store| {
                            let layers = api.lazystar_engine_layers();
                            layers.reader().call_supply(store, reader, offset, bytes)
                        })??)
                    })?;
                }
            }
        }
    }

    /// Drops a resource of the component.
    ///
    /// # Errors
    /// [`Error::Stopped`] when that does not return.
    pub fn drop_handle(&self, handle: Handle) -> Result<(), Error> {
        self.call(|_, store| handle.resource_drop(store))
    }
}

fn stopped(error: wasmtime::Error) -> Error {
    Error::Stopped(format!("{:#}", error.root_cause()))
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sandbox")
    }
}
