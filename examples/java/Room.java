// Announces a live stream and prints what is shown in it, with the libraries of Apache Kafka:
//   java -cp "$KAFKA_HOME/libs/*" Room.java localhost:9092 room-7 rtmp://media.example/live/room-7
// COPE_TOPIC_PREFIX stands before the topics' names, as in the workers. EVENTS=3 ends after three events.
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class Room {
    public static void main(String[] args) throws Exception {
        String broker = args[0], streamId = args[1], url = args[2];
        String prefix = System.getenv().getOrDefault("COPE_TOPIC_PREFIX", "");
        long left = Long.parseLong(System.getenv().getOrDefault("EVENTS", "" + Long.MAX_VALUE));
        ObjectMapper json = new ObjectMapper();

        Map<String, Object> sending = Map.of("bootstrap.servers", broker);
        try (var producer = new KafkaProducer<>(sending, new StringSerializer(), new StringSerializer())) {
            String announced = json.writeValueAsString(Map.of("stream_id", streamId, "url", url, "language", "en"));
            // The key is the stream's id.
            producer.send(new ProducerRecord<>(prefix + "live_streams", streamId, announced)).get();
        }

        Map<String, Object> reading = Map.of(
            "bootstrap.servers", broker, "group.id", prefix + "room-example-java", "auto.offset.reset", "earliest");
        try (var consumer = new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(prefix + "product_detected"));
            while (left > 0) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    JsonNode event = json.readTree(record.value());
                    if (event.get("stream_id").asText().equals(streamId) && left-- > 0) {
                        System.out.printf("%s %s %s%n", event.get("status").asText(),
                            event.get("product_id").asText(), event.get("confidence"));
                    }
                }
            }
        }
    }
}
