# A Perl program with a large hash and array: building, sorting, matching, forking. Usage: words.pl MEGABYTES
use strict;
use warnings;
my $megabytes = shift;
my $count = int($megabytes * 1_000_000 / 290);
my (%hash, @list);
for my $i (0 .. $count - 1) {
  my $key = sprintf("%08x", ($i * 2654435761) % 4294967296);
  $hash{$key} = "number $i " . ("abc" x ($i % 12));
  push @list, $key;
}
my $sum = 0;
for my $key (sort @list) { $sum = ($sum * 31 + length($hash{$key})) % 1000000007; }
print "sorted $sum\n";
my $matches = grep { $hash{$_} =~ /7 (abc){3,5}$/ } @list;
print "matched $matches\n";
my $pid = open(my $child, "-|") // die "fork: $!";
if ($pid == 0) {
  my $own = 0;
  $own += length for values %hash;
  $_ .= "child" for @list[0 .. 5000];
  print "child sees $own\n";
  exit 0;
}
print while <$child>;
close $child;
print "status $?\n";
delete @hash{@list[grep { $_ % 3 == 0 } 0 .. $#list]};
my $text = join ",", map { $hash{$_} // "gone" } @list;
print "joined ", length($text), " ", unpack("%32C*", $text), "\n";
print `echo from a shell | tr a-z A-Z`;
