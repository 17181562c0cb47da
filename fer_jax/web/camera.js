// The camera: opens it, lists the devices, and says in a sentence why it cannot.

const WANTED = { width: { ideal: 640 }, height: { ideal: 480 } };
const REASONS = {
  NotAllowedError: "The camera is not allowed: allow it for this page in the browser's settings.",
  NotFoundError: "There is no camera: connect one, or choose a picture.",
  OverconstrainedError: "This camera is gone: choose another one.",
  NotReadableError: "The camera is in use by another program: close that and start the camera again.",
};

export class Camera {
  constructor(video) {
    this.video = video;
    this.starts = 0; // and stops: a start that finds it changed came too late
  }

  get isOn() {
    return Boolean(this.stream);
  }

  // Returns whether this start turned the camera on: not if a later start or a stop came while it waited.
  async start(device) {
    this.stop();
    const number = this.starts;
    if (!navigator.mediaDevices) throw new Error("A browser allows the camera on https:// and localhost pages only.");
    const video = device ? { ...WANTED, deviceId: { exact: device } } : WANTED;
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
      if (number !== this.starts) {
        end(stream);
        return false;
      }
      this.stream = this.video.srcObject = stream;
      await this.video.play();
    } catch (error) {
      if (number === this.starts) throw new Error(REASONS[error.name] ?? `The camera cannot be used (${error.message}).`);
    }
    return number === this.starts;
  }

  stop() {
    this.starts += 1;
    end(this.stream);
    this.stream = this.video.srcObject = null;
  }

  // [{id, label, chosen}] of the devices, known once the camera is allowed.
  async devices() {
    const chosen = this.stream?.getVideoTracks()[0].getSettings().deviceId;
    const all = await navigator.mediaDevices.enumerateDevices();
    const cameras = all.filter((device) => device.kind === "videoinput");
    return cameras.map(({ deviceId, label }, place) => ({
      id: deviceId,
      label: label || `Camera ${place + 1}`,
      chosen: deviceId === chosen,
    }));
  }
}

function end(stream) {
  stream?.getTracks().forEach((track) => track.stop());
}
