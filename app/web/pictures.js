// Pictures: thumbnails no larger than they are shown, and the pictures that are searched by.

import { Failure, itemPath, request } from "./api.js";
import { h } from "./dom.js";
import { keys } from "./keys.js";
import { bytes, say } from "./language.js";

const SIZES = [160, 320, 640, 1280];
const KEPT_BLOBS = 400;
const LARGEST_SENT = 24 * 1024 * 1024;
const SENT_EDGE = 1024;

/** The smallest size whose picture, fitted into that square, is `width` CSS pixels wide on this screen. */
function sizeFor(width, ratio) {
  const wanted = width * Math.min(devicePixelRatio || 1, 2) / Math.min(1, ratio);
  return SIZES.find((size) => size >= wanted * 0.9) ?? SIZES.at(-1);
}

const blobs = new Map();

/** An address of a picture that needs the key: read over fetch, as an img cannot send one. */
async function blobAddress(path) {
  const known = blobs.get(path);
  if (known) {
    blobs.delete(path);
    blobs.set(path, known);
    return known;
  }
  const found = request(path).then((response) => response.blob()).then((blob) => URL.createObjectURL(blob));
  blobs.set(path, found);
  found.catch(() => blobs.delete(path));
  if (blobs.size > KEPT_BLOBS) {
    const [oldest, address] = blobs.entries().next().value;
    blobs.delete(oldest);
    address.then(URL.revokeObjectURL, () => {});
  }
  return found;
}

const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    fetchWithKey(target, target.dataset.path);
  }
}, { rootMargin: "600px" });

const waiting = new WeakMap();

/**
 * An img of a stored item. `width` is how wide it will be shown; without it the img is empty until `fetchMeasured`
 * has seen how wide it came out. `ratio` is its width over its height. Where there is no picture, its place says so.
 */
export function picture({ id, alt, width = null, ratio = 1, collection = null, eager = false }) {
  const image = h("img", { alt, decoding: "async", loading: eager ? "eager" : "lazy", draggable: false });
  image.addEventListener("error", () => {
    image.replaceWith(h("span", { class: "gone", role: "img", "aria-label": say("picture.gone.of", { alt }) }, say("picture.gone")));
  }, { once: true });
  const start = (shown) => {
    const path = itemPath(id, { below: "/image", size: sizeFor(shown, ratio), collection });
    if (keys.current() === null) image.src = path;
    else if (eager) fetchWithKey(image, path);
    else {
      image.dataset.path = path;
      near.observe(image);
    }
  };
  if (width === null) waiting.set(image, start);
  else start(width);
  return image;
}

function fetchWithKey(image, path) {
  blobAddress(path).then((address) => { image.src = address; }, () => image.dispatchEvent(new Event("error")));
}

/** Fetch pictures that are in the document now, each in the size that it is shown in. */
export function fetchMeasured(images) {
  // All are measured before the first is changed, or the browser would lay out anew for each.
  const widths = images.map((image) => image.clientWidth);
  images.forEach((image, index) => {
    waiting.get(image)?.(widths[index]);
    waiting.delete(image);
  });
}

/** A file as it is sent: no larger than an encoder can use, upright, and without what the camera wrote into it. */
async function shrunk(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    // Kinds that this browser cannot read, the service may.
    if (file.size > LARGEST_SENT) throw new Failure(413, "picture.large", { size: bytes(LARGEST_SENT) });
    return file;
  }
  const scale = Math.min(1, SENT_EDGE / Math.max(bitmap.width, bitmap.height));
  const canvas = h("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
  const context = canvas.getContext("2d");
  // As the encoders do: what is transparent is white.
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve) => canvas.toBlob((blob) => resolve(blob ?? file), "image/jpeg", 0.92));
}

const memory = new Map();
const KEPT_PICTURES = 30;

/** The store of pictures that were searched by, so that back, forward and reload find them again; null without one. */
function store() {
  return new Promise((resolve) => {
    let opening;
    try { opening = indexedDB.open("sightline", 1); } catch { resolve(null); return; }
    opening.onupgradeneeded = () => opening.result.createObjectStore("pictures");
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => resolve(null);
    opening.onblocked = () => resolve(null);
  });
}

const done = (asked) => new Promise((resolve, reject) => {
  asked.onsuccess = () => resolve(asked.result);
  asked.onerror = () => reject(asked.error);
});

/** Keep a picture to search by; its name for the address. Throws `Failure` for what is no picture. */
export async function keepPicture(file) {
  if (file.type && !file.type.startsWith("image/")) throw new Failure(415, "picture.not", { name: file.name });
  const blob = await shrunk(file);
  // Begins with the time, so that the oldest are known by name.
  const random = crypto.getRandomValues(new Uint32Array(2));
  const token = Date.now().toString(36).padStart(9, "0") + [...random].map((part) => part.toString(36)).join("");
  const kept = { blob, name: file.name };
  memory.set(token, kept);
  try {
    const database = await store();
    if (database) {
      const pictures = database.transaction("pictures", "readwrite").objectStore("pictures");
      await done(pictures.put(kept, token));
      const names = await done(pictures.getAllKeys());
      for (const old of names.slice(0, Math.max(0, names.length - KEPT_PICTURES))) pictures.delete(old);
      database.close();
    }
  } catch { /* then as long as this page is open */ }
  return token;
}

/** A kept picture as `{blob, name}`, null where this browser does not have it. */
export async function keptPicture(token) {
  if (memory.has(token)) return memory.get(token);
  try {
    const database = await store();
    const found = database && await done(database.transaction("pictures").objectStore("pictures").get(token));
    database?.close();
    if (found) memory.set(token, found);
    return found ?? null;
  } catch { return null; }
}

export function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** Take pictures that are dropped on the page or pasted into it, as long as `wanted()`. */
export function takePictures(wanted, take) {
  const holds = (transfer) => transfer && [...transfer.types].includes("Files");
  let depth = 0;
  const mark = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragenter", (event) => { if (wanted() && holds(event.dataTransfer)) { depth += 1; mark(true); } });
  document.addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) mark(false); });
  document.addEventListener("dragover", (event) => { if (holds(event.dataTransfer)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!holds(event.dataTransfer)) return;
    // Elsewhere too, or the browser would leave the page to show the file.
    event.preventDefault();
    depth = 0;
    mark(false);
    if (wanted() && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData?.files ?? []].find((each) => each.type.startsWith("image/"));
    if (wanted() && file) { event.preventDefault(); take(file); }
  });
}
