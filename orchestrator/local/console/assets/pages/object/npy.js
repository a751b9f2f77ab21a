// NumPy's file format: a magic text, a version, and a header with the type and the shape.

const MAX_VALUES = 200;
const MAGIC = "\x93NUMPY";
const READERS = {
  f4: [4, "getFloat32"], f8: [8, "getFloat64"], i1: [1, "getInt8"], i2: [2, "getInt16"], i4: [4, "getInt32"],
  i8: [8, "getBigInt64"], u1: [1, "getUint8"], u2: [2, "getUint16"], u4: [4, "getUint32"], u8: [8, "getBigUint64"],
  b1: [1, "getUint8"],
};

/** Return `{type, shape, order, values}` of the beginning of a file. For unsupported types, such as objects, `values`
 * is null. */
export function parseNpy(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (String.fromCharCode(...bytes.subarray(0, 6)) !== MAGIC) throw new Error("The object is not an npy file.");
  const hasLongHeader = bytes[6] > 1; // since version 2, the length of the header has 4 bytes instead of 2
  const start = hasLongHeader ? 12 : 10;
  const end = start + (hasLongHeader ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder().decode(bytes.subarray(start, end));
  const type = header.match(/'descr': '([^']*)'/)?.[1] ?? "structured";
  const shape = [...(header.match(/'shape': \(([^)]*)\)/)?.[1] ?? "").matchAll(/\d+/g)].map(([number]) => Number(number));
  const order = header.includes("'fortran_order': True") ? "Fortran" : "C";
  return { type, shape, order, values: readValues(view, end, type, shape) };
}

function readValues(view, start, type, shape) {
  if (!(type.slice(1) in READERS)) return null;
  const [size, read] = READERS[type.slice(1)];
  const count = shape.reduce((product, length) => product * length, 1);
  const shownCount = Math.min(MAX_VALUES, count, Math.max(0, Math.floor((view.byteLength - start) / size)));
  return Array.from({ length: shownCount }, (_, index) => view[read](start + index * size, type[0] !== ">"));
}
