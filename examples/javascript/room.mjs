// Announces a live stream and prints what is shown in it: npm install, then
//   node room.mjs localhost:9092 room-7 rtmp://media.example/live/room-7
// COPE_TOPIC_PREFIX stands before the topics' names, as in the workers. EVENTS=3 ends after three events.
import { Kafka, logLevel } from "kafkajs";

const [broker, streamId, url] = process.argv.slice(2);
const prefix = process.env.COPE_TOPIC_PREFIX ?? "";
let left = Number(process.env.EVENTS ?? Infinity);
const kafka = new Kafka({ clientId: "room", brokers: broker.split(","), logLevel: logLevel.ERROR });

const producer = kafka.producer();
await producer.connect();
const announced = { stream_id: streamId, url, language: "en" };
await producer.send({
  topic: `${prefix}live_streams`,
  messages: [{ key: streamId, value: JSON.stringify(announced) }], // the key is the stream's id
});
await producer.disconnect();

const consumer = kafka.consumer({ groupId: `${prefix}room-example` });
await consumer.connect();
await consumer.subscribe({ topic: `${prefix}product_detected`, fromBeginning: true });
const done = new Promise((resolve, reject) => {
  consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
  consumer.run({
    eachMessage: async ({ message }) => {
      const event = JSON.parse(message.value);
      if (event.stream_id !== streamId || left === 0) return;
      console.log(`${event.status} ${event.product_id} ${event.confidence}`);
      left -= 1;
      if (left === 0) resolve();
    },
  });
});
await done;
await consumer.disconnect();
