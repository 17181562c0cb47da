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
  }

  get isOn() {
    return Boolean(this.stream);
  }

  async start(device) {
    this.stop();
    if (!navigator.mediaDevices) throw new Error("A browser allows the camera on https:// and localhost pages only.");
    const video = device ? { ...WANTED, deviceId: { exact: device } } : WANTED;
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      throw new Error(REASONS[error.name] ?? `The camera cannot be used (${error.message}).`);
    }
    this.video.srcObject = this.stream;
    await this.video.play();
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
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
